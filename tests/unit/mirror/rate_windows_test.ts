import { deepEqual, equal } from "node:assert/strict";
import { ceilingAt, ceilingSpans } from "../../../src/mirror/rate_windows.ts";

const MIB = 2 ** 20, HOUR_MS = 3_600_000;
/** 2026-11-23 is a Monday. */
const at = (day: number, hour: number, minute = 0) => Date.UTC(2026, 10, day, hour, minute);
const NIGHT = { from_minute: 22 * 60, to_minute: 6 * 60, max_rate_bytes_per_s: null };
const EVERY_DAY = [0, 1, 2, 3, 4, 5, 6];

Deno.test("ceilingAt() takes the first window that covers the moment, else what holds always", () => {
  const office = { from_minute: 480, to_minute: 1080, days: [1, 2, 3, 4, 5] };
  const terms = {
    max_rate_bytes_per_s: 50 * MIB,
    rate_windows: [
      { ...office, max_rate_bytes_per_s: MIB },
      { ...office, max_rate_bytes_per_s: 2 * MIB },
      { ...NIGHT, days: EVERY_DAY },
    ],
  };
  equal(ceilingAt(terms, at(23, 7, 59)), 50 * MIB);
  equal(ceilingAt(terms, at(23, 8)), MIB);
  equal(ceilingAt(terms, at(23, 17, 59)), MIB);
  equal(ceilingAt(terms, at(23, 18)), 50 * MIB);
  equal(ceilingAt(terms, at(22, 9)), 50 * MIB, "Sunday");
  equal(ceilingAt(terms, at(23, 23)), null);
  equal(ceilingAt(terms, at(24, 5, 59)), null);
  equal(ceilingAt(terms, at(24, 6)), 50 * MIB);
});

Deno.test("a window over midnight belongs to the day on which it begins", () => {
  const terms = { max_rate_bytes_per_s: MIB, rate_windows: [{ ...NIGHT, days: [5] }] };
  equal(ceilingAt(terms, at(27, 23)), null, "Friday night");
  equal(ceilingAt(terms, at(28, 3)), null, "the morning after it");
  equal(ceilingAt(terms, at(27, 3)), MIB, "the morning before it");
  equal(ceilingAt(terms, at(28, 23)), MIB, "Saturday night");
});

Deno.test("ceilingSpans() lists the changes to come, and says the same as ceilingAt()", () => {
  const terms = { max_rate_bytes_per_s: MIB, rate_windows: [{ ...NIGHT, days: [1, 5] }] };
  const spans = ceilingSpans(terms, at(23, 12));
  deepEqual(spans.slice(0, 3), [
    { untilMs: at(23, 22), ceiling: MIB },
    { untilMs: at(24, 6), ceiling: null },
    { untilMs: at(27, 22), ceiling: MIB },
  ]);
  for (let ms = at(23, 12); ms < at(30, 0); ms += HOUR_MS / 4) {
    equal(spans.find(({ untilMs }) => ms < untilMs)?.ceiling, ceilingAt(terms, ms));
  }
  deepEqual(ceilingSpans({ max_rate_bytes_per_s: null }, 0), [{
    untilMs: Infinity,
    ceiling: null,
  }]);
});
