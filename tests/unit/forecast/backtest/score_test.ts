/** Scores against values worked out by hand, and against what they must be for naive itself. */
import { deepEqual, equal, ok } from "node:assert/strict";
import { seededRng } from "../../../../src/core/mod.ts";
import { BASE, PEERS } from "../../../../src/forecast/backtest/peers.ts";
import { compare } from "../../../../src/forecast/backtest/run.ts";
import { scoreOf, seasonalChange, summarise } from "../../../../src/forecast/backtest/score.ts";
import type { BacktestCase, BacktestTask } from "../../../../src/forecast/backtest/task.ts";

const TASK: BacktestTask = {
  task: "fill",
  set: "",
  file: "",
  value: "",
  step_s: 1,
  agg: "last",
  m: 1,
  m2: 0,
  h: 2,
  n_min: 2,
  n_max: 100,
  n_origins: 1,
  nonneg: true,
  kind: "capacity",
};
const near = (actual: number, expected: number) =>
  ok(Math.abs(actual - expected) < 1e-9 * Math.max(1, Math.abs(expected)), `${actual}`);

function caseOf(over: Partial<BacktestCase> = {}): BacktestCase {
  return { task: TASK, series: "a", origin: 4, training: [1, 3, 2, 4], actual: [5, 9], ...over };
}

Deno.test("scoreOf() is what the formulae say", () => {
  const score = scoreOf(caseOf(), [[1, 2, 4, 6, 7], [1, 2, 6, 8, 8.5]]);
  near(score.mae, (1 + 3) / 2);
  near(score.smape, 200 * (1 / 9 + 3 / 15) / 2);
  // 0.1: 0.1·3, 0.1·7; 0.5: 0.5·1, 0.5·3; 0.9: 0.1·1, 0.9·1.
  near(score.pinball, (0.5 + 1 + 0.5) / 3);
  near(score.coverage80, 0.5);
  near(score.coverage95, 0.5);
  near(score.interval95, (6 + 7.5 + 40 * 0.5) / 2);
  near(score.interval80, (4 + 6 + 10 * 1) / 2);
  near(score.scale, 5 / 3);
  near(score.size, 2.5);
});

Deno.test("seasonalChange() falls back to one step where there are not two seasons", () => {
  equal(seasonalChange([1, 2, 4, 8, 16], 2), (3 + 6 + 12) / 3);
  equal(seasonalChange([1, 2, 4, 8], 2), 7 / 3);
});

Deno.test("naive is relative to itself 1, and a twice as wide interval is worse", () => {
  const one = caseOf({ actual: [4, 5] });
  const base = scoreOf(one, BASE.forecast(one));
  const wide = BASE.forecast(one).map((row) => row.map((value) => 4 + 2 * (value - 4)));
  const summary = summarise(
    [{ series: "a", own: [base], base: [base] }, {
      series: "b",
      own: [scoreOf(one, wide)],
      base: [base],
    }],
    seededRng(1),
  );
  equal(summary.series, 2);
  ok(summary.relative_pinball > 1 && summary.relative_pinball < 2, `${summary.relative_pinball}`);
  deepEqual(compare([{ case: one, quantiles: BASE.forecast(one), fit_ms: 1 }])[0]?.relative_mae, 1);
});

Deno.test("a straight line is forecast exactly by the linear peers, and not by naive", () => {
  const training = Array.from({ length: 20 }, (_, at) => 10 + at);
  const one = caseOf({ training, actual: [30, 31] });
  for (const { name, forecast } of PEERS) {
    const { mae } = scoreOf(one, forecast(one));
    if (name === "naive") near(mae, 1.5);
    else near(mae, 0);
  }
});

Deno.test("naive of a rate with a season repeats the season", () => {
  const task = { ...TASK, kind: "io" as const, m: 3, h: 4 };
  const training = [0, 5, 9, 0, 5, 9, 0, 5, 9];
  deepEqual(
    BASE.forecast(caseOf({ task, training })).map((row) => row[2]),
    [0, 5, 9, 0],
  );
});
