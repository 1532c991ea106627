/** The child's answer to a forecast request: choose a step, make the series regular, run the model, name the times. */
import { formatDuration, PsmaError } from "../core/mod.ts";
import type { Database } from "./database.ts";
import { type ModelAnswer, runModel } from "./model.ts";
import { sql } from "./sql.ts";
import { isLevel, type SampleStore, type Sampling } from "./store.ts";
import {
  DEFAULT_LEVELS,
  type Forecast,
  type ForecastRequest,
  type SeriesForecast,
  type SeriesRequest,
  type TimeToLimit,
} from "./types.ts";

const SAMPLES_MIN = 8;
const STEPS_MAX = 96;
/** Points of the regular series: more cost time and say little that is still true. */
const POINTS_MAX = 2000;
/** A series shorter than this in steps is looked at more finely, and the steps become strides of it. */
const POINTS_WANTED = 16;
const SEASON_POINTS_MIN = 4;
const SEASON_POINTS_MAX = 300;
const DAY_MS = 86_400_000;
/** Steps a person can read: 1, 2, 5 × 10^n ms below a minute, then whole minutes and hours. */
const NICE_STEPS_MS = [
  ...[1, 10, 100, 1000, 10_000].flatMap((unit) => [unit, 2 * unit, 5 * unit]).filter((ms) =>
    ms < 60_000
  ),
  ...[1, 2, 5, 10, 15, 30].map((minutes) => minutes * 60_000),
  ...[1, 2, 3, 4, 6, 8, 12, 24, 48, 72, 168].map((hours) => hours * 3_600_000),
];

export interface Grid {
  readonly step_ms: number;
  /** Distance of the model's points; `step_ms` is a multiple of it. */
  readonly point_ms: number;
  readonly horizon_steps: number;
}

/** @throws {PsmaError} forecast/short-history below 8 samples, usage/forecast for a request that makes no sense. */
export function forecastVolume(
  database: Database,
  store: SampleStore,
  request: ForecastRequest,
  nowMs: number,
  elapsedMs: () => number,
): Forecast {
  const startedMs = elapsedMs();
  const { volume, metric, horizon_ms } = request;
  const levels = checkLevels(request.levels);
  const until = request.now_ms ?? nowMs;
  if (!(horizon_ms > 0)) throw bad("its horizon is not positive");
  const sampling = store.loadPoints(volume, metric, 0) ? store.sampling(until) : undefined;
  if (!sampling || sampling.points < SAMPLES_MIN) throw shortHistory(request, sampling);
  const grid = chooseGrid(horizon_ms, request.step_ms, sampling);
  store.loadPoints(volume, metric, grid.point_ms);
  store.regularise(metric, sampling.last_ms, grid.point_ms, POINTS_MAX);
  const points = Number(database.row(sql("pool", "length"))["n"]);
  const answer = runModel(database, {
    horizon_steps: grid.horizon_steps,
    stride: grid.step_ms / grid.point_ms,
    is_level: isLevel(metric),
    non_negative: true,
    levels,
    seasons: seasonsOf([DAY_MS / grid.point_ms, 7 * DAY_MS / grid.point_ms], points),
    limit: request.limit,
  });
  return {
    volume,
    metric,
    origin_ms: sampling.last_ms,
    step_ms: grid.step_ms,
    horizon_ms,
    levels,
    steps: answer.steps.map((values, index) => ({
      at_ms: sampling.last_ms + (index + 1) * grid.step_ms,
      values,
    })),
    history_points: points,
    model: answer.model,
    backtest: answer.backtest,
    ...timeToLimit(request, answer, levels, sampling.last_ms, grid.step_ms),
    fit_ms: elapsedMs() - startedMs,
  };
}

/** Forecasts a plain array, which replaces table `y`. */
export function forecastArray(
  database: Database,
  request: SeriesRequest,
  elapsedMs: () => number,
): SeriesForecast {
  const startedMs = elapsedMs();
  const { values, step_ms, horizon_steps } = request;
  const levels = checkLevels(request.levels);
  if (!Number.isInteger(horizon_steps) || horizon_steps < 1 || horizon_steps > 10 * STEPS_MAX) {
    throw bad(`its horizon of ${horizon_steps} steps is not in 1 to ${10 * STEPS_MAX}`);
  }
  if (values.length < SAMPLES_MIN || !values.every(Number.isFinite)) {
    throw new PsmaError("forecast/short-history", "Cannot forecast series: it is too short", {
      hint: `It needs at least ${SAMPLES_MIN} finite values.`,
    });
  }
  database.runWith(sql("pool", "array"), values.slice(-POINTS_MAX * 2));
  const seasons = request.seasons ?? [DAY_MS / step_ms, 7 * DAY_MS / step_ms];
  const answer = runModel(database, {
    horizon_steps,
    stride: 1,
    is_level: (request.kind ?? "level") === "level",
    non_negative: request.non_negative ?? true,
    levels,
    seasons: seasonsOf(seasons, values.length),
    limit: request.limit,
  });
  return { ...answer, levels, fit_ms: elapsedMs() - startedMs };
}

/**
 * Step: as asked, else the smallest readable one that is not below the sampling and gives at most 96 steps.
 * A history shorter than 16 steps is modelled at a fraction of the step instead.
 */
export function chooseGrid(
  horizonMs: number,
  stepMs: number | undefined,
  sampling: Sampling,
): Grid {
  const gap = Math.max(1, Math.round(sampling.gap_ms));
  const least = Math.max(horizonMs / STEPS_MAX, gap);
  const nice = NICE_STEPS_MS.find((step) => step >= least) ?? Math.ceil(least / DAY_MS) * DAY_MS;
  const wanted = Math.max(1, Math.round(stepMs ?? nice));
  if (horizonMs / wanted > 10 * STEPS_MAX) throw bad(`its step of ${wanted} ms is too fine`);
  const point_ms = wanted / partsOf(wanted, gap, sampling.last_ms - sampling.first_ms);
  return {
    step_ms: wanted,
    point_ms,
    horizon_steps: Math.max(1, Math.ceil(horizonMs / wanted - 1e-9)),
  };
}

/** Into how many whole parts of whole milliseconds a step is cut so that the history has 16 of them, if its sampling does. */
function partsOf(stepMs: number, gapMs: number, spanMs: number): number {
  const needed = POINTS_WANTED * stepMs / Math.max(spanMs, 1);
  const most = Math.floor(stepMs / gapMs);
  if (needed <= 1 || most <= 1) return 1;
  let parts = 1;
  for (let divisor = 2; divisor <= most && parts < needed; divisor++) {
    if (stepMs % divisor === 0) parts = divisor;
  }
  return parts;
}

/** Whole periods, long enough to be one and seen at least twice and a bit. */
export function seasonsOf(periods: readonly number[], points: number): number[] {
  const whole = periods.filter((m) => Math.abs(m - Math.round(m)) < 1e-9 * m).map(Math.round);
  return [...new Set(whole)].filter((m) =>
    m >= SEASON_POINTS_MIN && m <= SEASON_POINTS_MAX && points >= 2.5 * m
  );
}

function timeToLimit(
  request: ForecastRequest,
  answer: ModelAnswer,
  levels: readonly number[],
  originMs: number,
  stepMs: number,
): { time_to_limit?: TimeToLimit } {
  const { limit } = request;
  if (limit === undefined) return {};
  return {
    time_to_limit: {
      limit,
      by_level: levels.map((level, index) => {
        const step = crossing(answer.steps.map((values) => values[index] ?? NaN), limit);
        return { level, at_ms: step === null ? null : Math.round(originMs + step * stepMs) };
      }),
      probability_within_horizon: answer.probability ?? 0,
    },
  };
}

/** First (fractional) step at which a path reaches the limit, linear between steps. */
export function crossing(path: readonly number[], limit: number): number | null {
  const index = path.findIndex((value) => value >= limit);
  if (index < 0) return null;
  const after = path[index] ?? limit;
  const before = index === 0 ? undefined : path[index - 1];
  if (before === undefined || after <= before) return index + 1;
  return index + (limit - before) / (after - before);
}

function checkLevels(levels: readonly number[] = DEFAULT_LEVELS): number[] {
  const sound = levels.length > 0 && levels.length <= 99 &&
    levels.every((level) => level > 0 && level < 1);
  if (!sound) throw bad("its levels are not between 0 and 1");
  return [...new Set(levels)].sort((a, b) => a - b);
}

function shortHistory(request: ForecastRequest, sampling: Sampling | undefined): PsmaError {
  const { volume, metric } = request;
  const points = sampling?.points ?? 0;
  const gap = sampling?.gap_ms ?? 0;
  const wait = gap > 0 ? ` Try again in ${formatDuration((SAMPLES_MIN - points) * gap)}.` : "";
  return new PsmaError(
    "forecast/short-history",
    `Cannot forecast ${metric} of ${volume}: its history is ${points} samples, ${SAMPLES_MIN} needed`,
    { hint: `Samples come in while the agent runs.${wait}` },
  );
}

function bad(reason: string): PsmaError {
  return new PsmaError("usage/forecast", `Cannot forecast: ${reason}`);
}
