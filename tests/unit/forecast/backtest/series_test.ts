/** Series out of CSV text, and their roll-up. */
import { deepEqual, equal, throws } from "node:assert/strict";
import { parseSeries, rollUp, usualStep } from "../../../../src/forecast/backtest/series.ts";

Deno.test("parseSeries() takes seconds, milliseconds and ISO times, sorts, and skips gaps", () => {
  const text = "volume,time,value\n" +
    "a,1700000060,2\na,1700000000000,1\nb,2023-11-14T22:13:20Z,3\na,1700000120,\n";
  const series = parseSeries(text);
  deepEqual(series.get("a"), [{ at_s: 1700000000, value: 1 }, { at_s: 1700000060, value: 2 }]);
  deepEqual(series.get("b"), [{ at_s: 1700000000, value: 3 }]);
  equal(parseSeries("t,x\n1,5\n", { value: "x" }).get("")?.[0]?.value, 5);
});

Deno.test("parseSeries() says what is missing and where a line is bad", () => {
  throws(() => parseSeries("a,b\n1,2\n"), { code: "usage/series", message: /column for the time/ });
  throws(() => parseSeries("t,x\n1,2\n"), {
    code: "usage/series",
    message: /column for the value/,
    hint: /t, x/,
  });
  throws(() => parseSeries("t,value\n1,2\n2,x\n"), { code: "usage/series", message: /line 3/ });
  throws(() => parseSeries("t,value\nsoon,2\n"), { code: "usage/series", message: /line 2/ });
});

Deno.test("rollUp() keeps the last value or the mean of a slot and fills gaps linearly", () => {
  const points = [[65, 1], [70, 3], [130, 5], [310, 11]].map(([at_s = 0, value = 0]) => ({
    at_s,
    value,
  }));
  deepEqual(rollUp(points, { step_s: 60, agg: "last" }), [3, 5, 7, 9, 11]);
  deepEqual(rollUp(points, { step_s: 60, agg: "mean" }), [2, 5, 7, 9, 11]);
  deepEqual(rollUp(points, { step_s: 60, agg: "raw" }), [1, 3, 5, 11]);
  deepEqual(rollUp([], { step_s: 60, agg: "last" }), []);
  equal(usualStep(points), 60);
});
