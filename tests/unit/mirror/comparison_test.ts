import { deepEqual } from "node:assert/strict";
import { runsOf } from "../../../src/mirror/comparison.ts";

Deno.test("runsOf() puts adjacent numbers together, so many at most", () => {
  deepEqual(runsOf([], 4), []);
  deepEqual(runsOf([1, 2, 3, 5, 6, 9], 2), [[1, 2], [3], [5, 6], [9]]);
  deepEqual(runsOf([0, 1, 2, 3, 4], 4), [[0, 1, 2, 3], [4]]);
});
