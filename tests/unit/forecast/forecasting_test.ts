/** The step is readable, fits horizon and sampling, and a short history is looked at more finely. */
import { deepEqual, equal, ok, throws } from "node:assert/strict";
import { chooseGrid, crossing, seasonsOf } from "../../../src/forecast/forecasting.ts";

const sampling = (points: number, gap_ms: number) => ({
  points,
  gap_ms,
  first_ms: 0,
  last_ms: (points - 1) * gap_ms,
});

Deno.test("chooseGrid() gives at most 96 steps, never finer than the sampling, that reach the horizon", () => {
  for (const horizon of [1, 7, 30, 90, 600, 3600, 86_400, 7 * 86_400, 30 * 86_400]) {
    for (const gap of [200, 500, 5000, 60_000, 3_600_000]) {
      for (const points of [8, 20, 500, 20_000]) {
        const grid = chooseGrid(horizon * 1000, undefined, sampling(points, gap));
        const label = `${horizon} s by ${gap} ms × ${points}: ${JSON.stringify(grid)}`;
        ok(grid.horizon_steps >= 1 && grid.horizon_steps <= 96, label);
        ok(grid.horizon_steps * grid.step_ms >= horizon * 1000, label);
        ok(grid.step_ms >= gap && grid.point_ms >= gap, label);
        ok(
          Number.isInteger(grid.step_ms / grid.point_ms) && Number.isInteger(grid.point_ms),
          label,
        );
      }
    }
  }
});

Deno.test("chooseGrid() takes the step that was asked for", () => {
  deepEqual(chooseGrid(3_600_000, 300_000, sampling(20_000, 5000)), {
    step_ms: 300_000,
    point_ms: 300_000,
    horizon_steps: 12,
  });
  throws(() => chooseGrid(86_400_000, 10, sampling(100, 5)), { code: "usage/forecast" });
});

Deno.test("chooseGrid() cuts the step when the history is short: a day ahead from ten minutes", () => {
  const grid = chooseGrid(86_400_000, undefined, sampling(120, 5000));
  equal(grid.step_ms, 900_000);
  ok(600_000 / grid.point_ms >= 16, JSON.stringify(grid));
});

Deno.test("crossing() interpolates within the step and says null when the limit is out of reach", () => {
  equal(crossing([1, 2, 4, 8], 3), 2.5);
  equal(crossing([5, 6], 5), 1);
  equal(crossing([1, 2], 3), null);
  equal(crossing([1, 1, 9, 0, 20], 9), 3);
});

Deno.test("seasonsOf() keeps whole periods that the history shows more than twice", () => {
  deepEqual(seasonsOf([24, 168, 24], 400), [24]);
  deepEqual(seasonsOf([24, 168], 420), [24, 168]);
  deepEqual(seasonsOf([2.5, 3, 1000], 9000), []);
});
