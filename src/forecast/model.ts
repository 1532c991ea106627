/**
 * Runs the models of `models/` over the regular series in table `y`: pool, back-test, weights,
 * calibration, quantiles. All arithmetic is SQL; this file only says in which order.
 */
import { probit } from "simple-statistics";
import type { Database } from "./database.ts";
import { sql } from "./sql.ts";
import type { BacktestSummary, ModelWeight } from "./types.ts";

export interface ModelTask {
  /** Steps wanted, each `stride` points of the series long. */
  readonly horizon_steps: number;
  readonly stride: number;
  readonly is_level: boolean;
  readonly non_negative: boolean;
  /** Ascending, in (0, 1). */
  readonly levels: readonly number[];
  /** Seasonal periods in steps that fit the series at least twice. */
  readonly seasons: readonly number[];
  readonly limit?: number | undefined;
}

export interface ModelAnswer {
  /** `[step][level]`. */
  readonly steps: number[][];
  readonly model: ModelWeight[];
  readonly backtest: BacktestSummary;
  readonly probability?: number;
}

/** The back-test is told for these, whatever levels were asked for. */
const SCORED_LEVELS = [0.1, 0.5, 0.9];
/** Re-weighted least squares gains little after this many. */
export const REGRESSION_STEPS = 8;
const prepared = new WeakSet<Database>();

/** Forecasts table `y(i, v)`, i = 1..n, n >= 2. Leaves its temporary tables behind for the next run to replace. */
export function runModel(database: Database, task: ModelTask): ModelAnswer {
  if (!prepared.has(database)) {
    database.run(sql("calibration", "macros"));
    prepared.add(database);
  }
  const { horizon_steps: h, stride, is_level } = task;
  giveLists(database, task);
  database.runWith(sql("pool", "task"), h * stride, stride, is_level ? 1 : 0);
  database.run(sql("pool", "simple"));
  if (task.seasons.length > 0) database.run(sql("pool", "seasonal"));
  runHoltWinters(database, task.seasons.length > 0);
  runQuantileRegression(database);
  for (const section of ["weigh", "combine"]) database.run(sql("pool", section));
  for (const section of ["prior", "residuals"]) database.run(sql("calibration", section));
  const floor = task.non_negative ? 0 : -1e300;
  database.runWith(sql("calibration", "quantiles"), floor);
  return {
    steps: readSteps(database, task),
    model: database.rows(sql("pool", "report")).map((row) => ({
      name: String(row["name"]),
      weight: Number(row["weight"]),
    })),
    backtest: readBacktest(database),
    ...(task.limit === undefined ? {} : { probability: firstPassage(database, task.limit) }),
  };
}

function runHoltWinters(database: Database, seasonal: boolean): void {
  for (const section of ["settings", "runs", "fold_plain"]) {
    database.run(sql("holt_winters", section));
  }
  if (seasonal) database.run(sql("holt_winters", "fold_seasonal"));
  database.run(sql("holt_winters", "forecast"));
}

function runQuantileRegression(database: Database): void {
  for (const section of ["design", "fits"]) database.run(sql("quantile_regression", section));
  const fits = Number(database.row(sql("quantile_regression", "count"))["fits"]);
  for (let step = 0; fits > 0 && step < REGRESSION_STEPS; step++) {
    database.run(sql("quantile_regression", "iterate"));
  }
  for (const section of ["centre", "forecast"]) database.run(sql("quantile_regression", section));
}

function giveLists(database: Database, task: ModelTask): void {
  const levels = [...new Set([...task.levels, ...SCORED_LEVELS])].sort((a, b) => a - b);
  database.runWith(sql("pool", "lists"), levels, levels.map(probit), task.seasons);
}

function readSteps(database: Database, task: ModelTask): number[][] {
  const steps: number[][] = Array.from({ length: task.horizon_steps }, () => []);
  const wanted = new Set(task.levels);
  for (const row of database.rows(sql("calibration", "answer"))) {
    if (wanted.has(Number(row["level"]))) {
      steps[Number(row["k"]) / task.stride - 1]?.push(Number(row["value"]));
    }
  }
  return steps;
}

function readBacktest(database: Database): BacktestSummary {
  const row = database.row(sql("calibration", "backtest"));
  const orNull = (value: unknown) => value === null ? null : Number(value);
  return {
    windows: Number(row["windows"]),
    coverage80: orNull(row["coverage80"]),
    pinball: orNull(row["pinball"]),
  };
}

function firstPassage(database: Database, limit: number): number {
  return Number(database.row(sql("calibration", "first_passage"), limit)["probability"]);
}
