/** The figures that a backend keeps of its operations. */
import assert from "node:assert/strict";
import { BackendMeter } from "../../../src/backend/meter.ts";
import { OPERATION, Operations } from "../../../src/backend/operations.ts";

Deno.test("BackendMeter counts each kind for itself, and only bytes that arrived", () => {
  const meter = new BackendMeter();
  assert.deepEqual(meter.report(), []);
  for (let i = 1; i <= 100; i++) meter.record(OPERATION.write, 4096, i * 10, 0);
  meter.record(OPERATION.write, 512, 1, 28);
  meter.record(OPERATION.writeZeroes, 1 << 20, 2 ** 40, 0);
  const [write, zeroes, ...rest] = meter.report();
  assert.deepEqual(rest, []);
  assert.deepEqual(
    [write?.operation, write?.count, write?.errors, write?.bytes],
    ["write", 101, 1, 409_600],
  );
  const { mean = 0, p50 = 0, p99 = 0, max = 0 } = write?.latency_us ?? {};
  assert.equal(Math.round(mean), 500);
  assert.ok(500 <= p50 && p50 <= 563, `median ${p50}`);
  assert.ok(980 <= p99 && p99 <= 1000, `99th percentile ${p99}`);
  assert.equal(max, 1000);
  // Longer than the histogram reaches: an operation that was held while its store was away.
  assert.deepEqual([zeroes?.operation, zeroes?.latency_us.max], ["write_zeroes", 2 ** 40]);
});

Deno.test("Operations tells the meter that an operation began with, once, when it completes", () => {
  let now = 100;
  const operations = new Operations(4, { monotonicMs: () => now });
  const told: number[][] = [];
  const meter = { record: (...figures: number[]) => void told.push(figures) };
  const owner = operations.registerOwner(() => {});
  const take = () => operations.take(owner, 0, OPERATION.trim, 0, 77, 0, 0);
  const op = take();
  operations.begin(op, meter);
  now = 102.5;
  operations.complete(op, 5);
  operations.complete(take(), 0);
  assert.deepEqual(told, [[OPERATION.trim, 77, 2500, 5]], "one that never began is not counted");
});
