/** Time that stands still within a batch. */
import assert from "node:assert/strict";
import { BatchClock } from "../../../src/backend/batch_clock.ts";
import { systemClock } from "../../../src/core/mod.ts";

Deno.test("BatchClock reads the time once between two waits", () => {
  let reads = 0;
  const source = { batches: 0 };
  const clock = new BatchClock({ ...systemClock, monotonicMs: () => ++reads }, source);
  assert.deepEqual([clock.monotonicMs(), clock.monotonicMs(), clock.monotonicMs()], [1, 1, 1]);
  source.batches++;
  assert.deepEqual([clock.monotonicMs(), clock.monotonicMs()], [2, 2]);
  source.batches += 5;
  assert.equal(clock.monotonicMs(), 3);
  assert.equal(reads, 3);
});
