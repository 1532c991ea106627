/** The combined model on series whose truth is known: honest, ordered, and never wild. */
import { deepEqual, equal, ok } from "node:assert/strict";
import { seededRng } from "../../../src/core/mod.ts";
import type { Database } from "../../../src/forecast/database.ts";
import { forecastArray } from "../../../src/forecast/forecasting.ts";
import type { SeriesForecast, SeriesRequest } from "../../../src/forecast/types.ts";
import { withDatabase } from "../../support/duckdb.ts";

const elapsed = () => 0;
const forecast = (
  database: Database,
  values: readonly number[],
  horizon_steps: number,
  more: Partial<SeriesRequest> = {},
): SeriesForecast =>
  forecastArray(
    database,
    { values, step_ms: 60_000, horizon_steps, seasons: [], ...more },
    elapsed,
  );

/** Fails unless there is one value per step and level, all finite, ascending in the level, not negative. */
function checkShape(answer: SeriesForecast, horizon: number): void {
  equal(answer.steps.length, horizon);
  for (const values of answer.steps) {
    equal(values.length, answer.levels.length);
    values.forEach((value, index) => {
      ok(Number.isFinite(value) && value >= 0, `${value} is not a forecast`);
      if (index > 0) ok(value >= (values[index - 1] ?? 0), `${values} is not ascending`);
    });
  }
  const total = answer.model.reduce((sum, member) => sum + member.weight, 0);
  ok(Math.abs(total - 1) < 0.05, `weights add up to ${total}`);
}

Deno.test("coverage on noisy growth is near what was asked, and the median runs along", () =>
  withDatabase((database) => {
    const rng = seededRng(3);
    let inside = 0, points = 0;
    const horizon = 20;
    for (let series = 0; series < 12; series++) {
      let level = 1e9;
      const pace = 1e6 * (1 + rng.float());
      const all = Array.from({ length: 200 + horizon }, () => level += pace * 2 * rng.float());
      const answer = forecast(database, all.slice(0, 200), horizon, { levels: [0.1, 0.5, 0.9] });
      checkShape(answer, horizon);
      answer.steps.forEach(([low = 0, , high = 0], index) => {
        const actual = all[200 + index] ?? NaN;
        if (actual >= low && actual <= high) inside++;
        points++;
      });
      const middle = (answer.steps.at(-1)?.[1] ?? 0) - (all[199] ?? 0);
      ok(middle > 0.7 * pace * horizon && middle < 1.3 * pace * horizon, `grows by ${middle}`);
    }
    const coverage = inside / points;
    ok(coverage > 0.7 && coverage < 0.99, `80 % interval covers ${coverage}`);
  }));

Deno.test("a season is found and followed", () =>
  withDatabase((database) => {
    const rng = seededRng(4);
    const value = (i: number) => 1000 + 200 * Math.sin(2 * Math.PI * i / 24);
    const values = Array.from({ length: 400 }, (_, i) => value(i) + 10 * rng.float());
    const answer = forecast(database, values, 24, {
      seasons: [24],
      kind: "rate",
      levels: [0.1, 0.5, 0.9],
    });
    checkShape(answer, 24);
    answer.steps.forEach(([, middle = 0], index) => {
      ok(Math.abs(middle - value(400 + index)) < 25, `step ${index + 1}: ${middle}`);
    });
  }));

Deno.test("difficult series stay within reason", () =>
  withDatabase((database) => {
    const rng = seededRng(8);
    const cases: [string, number[], number][] = [
      ["constant", Array(60).fill(5e9), 5.1e9],
      ["zero", Array(60).fill(0), 1],
      ["eight points", [1, 2, 3, 4, 5, 6, 7, 8].map((v) => v * 1e6), 2e9],
      ["saw-tooth", Array.from({ length: 400 }, (_, i) => (i % 50) * 10), 3000],
      [
        "level shift",
        Array.from({ length: 300 }, (_, i) => i < 200 ? 100 : 1000 + rng.float()),
        5000,
      ],
      [
        "one spike",
        Array.from({ length: 300 }, (_, i) => i === 150 ? 1e6 : 100 + rng.float()),
        2000,
      ],
      [
        "zero but for bursts",
        Array.from({ length: 300 }, () => rng.float() < 0.03 ? 500 : 0),
        5000,
      ],
      ["a drop at the end", Array.from({ length: 100 }, (_, i) => i < 97 ? 1000 + i : 10), 20_000],
    ];
    for (const [name, values, most] of cases) {
      for (const kind of ["level", "rate"] as const) {
        const answer = forecast(database, values, 30, { kind });
        checkShape(answer, 30);
        const top = Math.max(...answer.steps.flat());
        ok(top <= most, `${name} as ${kind}: reaches ${top}`);
      }
    }
  }));

Deno.test("what never moved is forecast to stay, within a hair", () =>
  withDatabase((database) => {
    const answer = forecast(database, Array(100).fill(5e9), 10);
    for (const value of answer.steps.flat()) ok(Math.abs(value / 5e9 - 1) < 1e-3, `${value}`);
  }));

Deno.test("the interval widens with the lead and narrows with the history", () =>
  withDatabase((database) => {
    const rng = seededRng(9);
    let level = 1e9;
    const values = Array.from({ length: 400 }, () => level += 1e6 * 2 * rng.float());
    const width = (answer: SeriesForecast, step: number) => {
      const values = answer.steps[step - 1] ?? [];
      return (values.at(-1) ?? NaN) - (values[0] ?? NaN);
    };
    const long = forecast(database, values, 60);
    const short = forecast(database, values.slice(-20), 60);
    ok(width(long, 60) > 2 * width(long, 1));
    ok(width(short, 60) > 1.5 * width(long, 60), `${width(short, 60)} against ${width(long, 60)}`);
  }));

Deno.test("the probability of reaching a limit is a first passage: at least the marginal, at most twice it", () =>
  withDatabase((database) => {
    const rng = seededRng(10);
    let level = 1e6;
    // A walk without drift: by the reflection principle the maximum passes twice as often as the end.
    const values = Array.from({ length: 500 }, () => level += 1000 * (rng.float() - 0.5));
    const levels = Array.from({ length: 39 }, (_, i) => (i + 1) / 40);
    const last = values.at(-1) ?? 0;
    const end = forecast(database, values, 40, { levels }).steps.at(-1) ?? [];
    const limit = end[31] ?? 0; // level 0.8: the end lies above it in 20 % of the paths
    ok(limit > last);
    const { probability = NaN } = forecast(database, values, 40, { levels, limit });
    ok(probability > 0.22 && probability < 0.5, `${probability}`);
    equal(forecast(database, values, 40, { limit: last - 1e6 }).probability, 1);
    equal(forecast(database, values, 40, { limit: last + 1e6 }).probability, 0);
  }));

Deno.test("the back-test tells an interval that held from one that a new pace broke", () =>
  withDatabase((database) => {
    const rng = seededRng(13);
    const grow = (paceAt: (i: number) => number) => {
      let level = 1e9;
      return Array.from({ length: 300 }, (_, i) => level += paceAt(i) * (0.5 + rng.float()));
    };
    const steady = forecast(database, grow(() => 1e6), 10).backtest;
    const broken = forecast(database, grow((i) => i < 255 ? 1e6 : 2e7), 10).backtest;
    ok(steady.windows >= 5 && steady.windows <= 30, `${steady.windows} windows`);
    ok((steady.coverage80 ?? 0) > 0.7, `steady: ${steady.coverage80}`);
    ok((broken.coverage80 ?? 1) < (steady.coverage80 ?? 0), `broken: ${broken.coverage80}`);
    ok((broken.pinball ?? 0) > 2 * (steady.pinball ?? Infinity));
  }));

Deno.test("the same series gives the same forecast", () =>
  withDatabase((database) => {
    const rng = seededRng(12);
    const values = Array.from({ length: 100 }, (_, i) => 100 + i + rng.float());
    const first = forecast(database, values, 10, { limit: 205 });
    forecast(database, values.map((v) => v * 7), 25);
    deepEqual(forecast(database, values, 10, { limit: 205 }), first);
  }));
