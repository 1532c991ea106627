/** The arithmetic behind every latency that is cut out of a load's record. */
import { deepEqual, equal } from "node:assert/strict";
import { decodeLog, LatencyLog, quantile } from "../bench/mirror/load.ts";

Deno.test("decodeLog() reads moments and latencies, whatever follows them", () => {
  const text = "1795428144155, 348848, 1, 4096, 0\n1795428144156, 456357, 0, 4096, 0, 7\n";
  const { moments_ms, latencies_us } = decodeLog(new TextEncoder().encode(text));
  deepEqual([...moments_ms], [1795428144155, 1795428144156]);
  deepEqual([...latencies_us], [348.848, 456.357]);
});

Deno.test("in() judges what completed in a stretch, its end left out", () => {
  const log = new LatencyLog(
    Float64Array.from({ length: 2000 }, (_, index) => index),
    Float64Array.from({ length: 2000 }, (_, index) => index < 1000 ? 1000 - index : 5000),
  );
  const stretch = { from_ms: 0, to_ms: 1000 };
  deepEqual(log.in(stretch), { operations_per_s: 1000, p99_us: 991, p999_us: 1000, max_us: 1000 });
  equal(log.in({ from_ms: 999, to_ms: 1001 })?.max_us, 5000);
  equal(log.in({ from_ms: 3000, to_ms: 4000 }), undefined);
});

Deno.test("quantile() of one, and of the last", () => {
  deepEqual([quantile(Float64Array.of(7), 0.5), quantile(Float64Array.of(1, 2), 1)], [7, 2]);
});
