/** Rates from counters: what cannot be known is not made up. */
import { deepEqual, equal } from "node:assert/strict";
import { compareReadings, type Reading } from "../../../src/monitor/rates.ts";

const at = (ms: number, writes: number, wall = ms): Reading => ({
  at_ms: 1e12 + wall,
  monotonic_ms: ms,
  counters: { writes },
});
const options = { interval_ms: 1000 };

Deno.test("compareReadings() gives rates per second of monotonic time", () => {
  const { rates, oddities } = compareReadings(at(0, 100), at(500, 150), options);
  deepEqual(rates, { writes: 100 });
  deepEqual(oddities, []);
});

Deno.test("compareReadings() has no rate for a first reading or a counter that began again", () => {
  deepEqual(compareReadings(undefined, at(0, 5), options).oddities, ["first"]);
  const reset = compareReadings(at(0, 100), at(1000, 3), options);
  equal(reset.rates, undefined);
  deepEqual(reset.oddities, ["reset"]);
  const grown = { ...at(1000, 3), counters: { writes: 200, reads: 1 } };
  deepEqual(compareReadings(at(0, 100), grown, options).oddities, ["reset"]);
});

Deno.test("compareReadings() takes a wrap for a wrap only where the counter is known to", () => {
  const [before, now] = [at(0, 2 ** 32 - 10), at(1000, 20)];
  deepEqual(compareReadings(before, now, { ...options, wraps: ["writes"] }).rates, { writes: 30 });
  equal(compareReadings(before, now, options).rates, undefined);
  const middle = compareReadings(at(0, 2 ** 31), at(1000, 20), { ...options, wraps: ["writes"] });
  deepEqual(middle.oddities, ["reset"]);
});

Deno.test("compareReadings() does not average over readings that were missed", () => {
  const missed = compareReadings(at(0, 0), at(3100, 310), options);
  equal(missed.rates, undefined);
  deepEqual(missed.oddities, ["gap"]);
  deepEqual(compareReadings(at(0, 0), at(2900, 290), options).rates, { writes: 100 });
});

Deno.test("compareReadings() measures by the monotonic clock when the wall clock steps or the machine slept", () => {
  for (const wall of [-3_600_000, 3_600_000]) {
    const { rates, oddities } = compareReadings(at(0, 0), at(1000, 100, wall), options);
    deepEqual(rates, { writes: 100 });
    deepEqual(oddities, ["clock-step"]);
  }
  equal(compareReadings(at(0, 0), at(0, 100), options).rates, undefined);
});
