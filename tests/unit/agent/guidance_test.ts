import { deepEqual, equal } from "node:assert/strict";
import { deadlineOf, loadSteps } from "../../../src/agent/guidance.ts";
import type { Forecast } from "../../../src/forecast/mod.ts";

const NOW_MS = Date.UTC(2026, 10, 23, 12), HOUR_MS = 3_600_000;

function forecast(levels: readonly number[], rows: readonly (readonly number[])[]): Forecast {
  return {
    volume: "data",
    metric: "write_iops",
    origin_ms: NOW_MS,
    step_ms: HOUR_MS,
    horizon_ms: rows.length * HOUR_MS,
    levels,
    steps: rows.map((values, index) => ({ at_ms: NOW_MS + (index + 1) * HOUR_MS, values })),
    history_points: 100,
    model: [],
    backtest: { windows: 0, coverage80: null, pinball: null },
    fit_ms: 1,
  };
}

Deno.test("loadSteps() joins writes and requests, each step up to its own time", () => {
  const steps = loadSteps({
    write_bytes: forecast([0.5, 0.9], [[10, 20], [-1, 40]]),
    write_iops: forecast([0.5], [[3], [4]]),
    read_iops: forecast([0.5], [[100]]),
  });
  const [first, second] = [NOW_MS, NOW_MS + HOUR_MS].map((from_ms) => ({
    from_ms,
    until_ms: from_ms + HOUR_MS,
  }));
  deepEqual(steps, [
    { ...first, write_bytes_per_s: 10, write_high_bytes_per_s: 20, load_iops: 103 },
    { ...second, write_bytes_per_s: 0, write_high_bytes_per_s: 40, load_iops: 4 },
  ]);
  const other = { write_iops: forecast([0.5], []), read_iops: forecast([0.5], []) };
  deepEqual(loadSteps({ write_bytes: forecast([0.5], [[1]]), ...other }), []);
});

Deno.test("deadlineOf() is the earlier of the predicted need and an operator's wish, less the switch", () => {
  const at = new Date(NOW_MS).toISOString();
  const plan = { at, numbers: { full_in_ms: 5 * HOUR_MS, switch_lead_ms: 1000 } };
  const none = { plan: undefined, wanted_at: undefined, switch_ms: null, safety_ms: 60_000 };
  const wanted_at = new Date(NOW_MS + HOUR_MS).toISOString();
  equal(deadlineOf(none), null);
  equal(deadlineOf({ ...none, plan: { at, numbers: { full_in_ms: null } } }), null);
  equal(deadlineOf({ ...none, plan }), NOW_MS + 5 * HOUR_MS - 61_000);
  equal(deadlineOf({ ...none, plan, wanted_at, switch_ms: 500 }), NOW_MS + HOUR_MS - 500);
  equal(deadlineOf({ ...none, wanted_at }), NOW_MS + HOUR_MS);
});
