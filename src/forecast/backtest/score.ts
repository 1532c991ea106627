/** Scores of quantile forecasts, as the field defines them (Hyndman 2006; Makridakis 2020; Gneiting 2007). */
import { mean } from "simple-statistics";
import type { Rng } from "../../core/mod.ts";
import type { BacktestCase } from "./task.ts";

/** The levels that are scored; 0.5 is the point forecast. */
export const SCORED_LEVELS: readonly number[] = [0.025, 0.1, 0.5, 0.9, 0.975];

/** Quantiles by step, in the order of `SCORED_LEVELS`. */
export type Quantiles = readonly (readonly number[])[];

export interface Score {
  /** Mean absolute error of the median, in the series' unit. */
  readonly mae: number;
  /** 0 to 200. */
  readonly smape: number;
  /** Mean pinball loss over 0.1, 0.5 and 0.9, in the series' unit. */
  readonly pinball: number;
  /** Twice the mean pinball loss over all scored levels, in the series' unit. */
  readonly crps: number;
  readonly coverage80: number;
  readonly coverage95: number;
  /** Interval score of the 95 % interval, in the series' unit. */
  readonly interval95: number;
  /** Interval score of the 80 % interval, in the series' unit. */
  readonly interval80: number;
  /** What scaled scores divide by: the mean seasonal change in training, in the series' unit. */
  readonly scale: number;
  /** Mean absolute value of training, in the series' unit. */
  readonly size: number;
}

/** Scores one forecast. @param quantiles as many steps as there are actual values. */
export function scoreOf({ task, training, actual }: BacktestCase, quantiles: Quantiles): Score {
  const over = (score: (y: number, q: readonly number[]) => number): number =>
    mean(actual.map((y, at) => score(y, quantiles[at] ?? [])));
  const loss = (level: number) => {
    const index = SCORED_LEVELS.indexOf(level);
    return over((y, q) => pinball(y, q[index] ?? NaN, level));
  };
  const interval = (alpha: number, low: number, high: number) =>
    over((y, q) => {
      const l = q[low] ?? NaN, u = q[high] ?? NaN;
      return u - l + 2 / alpha * (Math.max(l - y, 0) + Math.max(y - u, 0));
    });
  const inside = (low: number, high: number) =>
    over((y, q) => y >= (q[low] ?? NaN) && y <= (q[high] ?? NaN) ? 1 : 0);
  return {
    mae: over((y, q) => Math.abs(y - (q[2] ?? NaN))),
    smape: 200 * over((y, q) => {
      const both = Math.abs(y) + Math.abs(q[2] ?? NaN);
      return both === 0 ? 0 : Math.abs(y - (q[2] ?? NaN)) / both;
    }),
    pinball: mean([0.1, 0.5, 0.9].map(loss)),
    crps: 2 * mean(SCORED_LEVELS.map(loss)),
    coverage80: inside(1, 3),
    coverage95: inside(0, 4),
    interval95: interval(0.05, 0, 4),
    interval80: interval(0.2, 1, 3),
    scale: seasonalChange(training, task.m),
    size: mean(training.map((value) => Math.abs(value))),
  };
}

function pinball(y: number, q: number, level: number): number {
  return y >= q ? level * (y - q) : (1 - level) * (q - y);
}

/** Mean absolute change over a season of m points; over one point where training has not two seasons. */
export function seasonalChange(training: readonly number[], m: number): number {
  const lag = training.length <= 2 * m ? 1 : m;
  return mean(training.slice(lag).map((value, at) => Math.abs(value - (training[at] ?? value))));
}

/** What a table of one task shows of one method. */
export interface Summary {
  readonly series: number;
  readonly forecasts: number;
  /** Geometric means over series of the score by the base's. */
  readonly relative_pinball: number;
  readonly relative_interval: number;
  readonly relative_mae: number;
  /** 95 % bootstrap interval of `relative_pinball`; groups of series are drawn, not series. */
  readonly relative_pinball_interval: readonly [number, number];
  readonly mase: number;
  readonly smape: number;
  /** Pinball loss by scale. */
  readonly scaled_pinball: number;
  readonly scaled_crps: number;
  readonly coverage80: number;
  readonly coverage95: number;
  readonly msis: number;
  readonly msis80: number;
}

/** The scores of one series' origins, of a method and of the base that it is compared with. */
export interface SeriesScores {
  readonly series: string;
  readonly own: readonly Score[];
  readonly base: readonly Score[];
}

const DRAWS = 1000;
/** Series of one machine, file system or node fare alike. */
const GROUP = /vm\d+|^[^:]+:[^:]+|^[^-_]+/;

/** Averages over origins first, then over series. @param rng draws the bootstrap's groups. */
export function summarise(all: readonly SeriesScores[], rng: Rng): Summary {
  const ratios = all.map(({ own, base }) => ({
    pinball: logRatio(own, base, ({ pinball }) => pinball),
    interval: logRatio(own, base, ({ interval95 }) => interval95),
    mae: logRatio(own, base, ({ mae }) => mae),
  }));
  const over = (of: (score: Score) => number): number =>
    mean(all.map(({ own }) => mean(own.map(of))));
  const scaled = (of: (score: Score) => number): number =>
    over((score) => of(score) / Math.max(score.scale, floorOf(score)));
  const groups = Map.groupBy(
    all.map(({ series }, at) => ({ group: GROUP.exec(series)?.[0] ?? series, at })),
    ({ group }) => group,
  );
  return {
    series: all.length,
    forecasts: all.reduce((count, { own }) => count + own.length, 0),
    relative_pinball: Math.exp(mean(ratios.map(({ pinball }) => pinball))),
    relative_interval: Math.exp(mean(ratios.map(({ interval }) => interval))),
    relative_mae: Math.exp(mean(ratios.map(({ mae }) => mae))),
    relative_pinball_interval: bootstrap(
      [...groups.values()].map((members) => members.map(({ at }) => ratios[at]?.pinball ?? 0)),
      rng,
    ),
    mase: scaled(({ mae }) => mae),
    smape: over(({ smape }) => smape),
    scaled_pinball: scaled(({ pinball }) => pinball),
    scaled_crps: scaled(({ crps }) => crps),
    coverage80: over(({ coverage80 }) => coverage80),
    coverage95: over(({ coverage95 }) => coverage95),
    msis: scaled(({ interval95 }) => interval95),
    msis80: scaled(({ interval80 }) => interval80),
  };
}

/** Keeps ratios of two nearly perfect forecasts near one. */
function floorOf({ scale, size }: Score): number {
  return 1e-3 * scale + 1e-6 * size;
}

function logRatio(
  own: readonly Score[],
  base: readonly Score[],
  of: (score: Score) => number,
): number {
  const floor = mean(base.map(floorOf));
  const ratio = (mean(own.map(of)) + floor) / (mean(base.map(of)) + floor);
  return Math.max(-4, Math.min(4, Math.log(ratio)));
}

function bootstrap(
  groups: readonly (readonly number[])[],
  rng: Rng,
): readonly [number, number] {
  const draws = Array.from({ length: DRAWS }, () => {
    const drawn = groups.map(() => groups[rng.below(groups.length)] ?? []);
    return Math.exp(mean(drawn.flat()));
  }).sort((a, b) => a - b);
  const at = (share: number) => draws[Math.round(share * (DRAWS - 1))] ?? NaN;
  return [at(0.025), at(0.975)];
}
