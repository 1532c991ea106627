/** What people use instead: the last value, the last season, and a straight line (Prometheus' `predict_linear`). */
import { probit } from "simple-statistics";
import { type Quantiles, SCORED_LEVELS } from "./score.ts";
import type { BacktestCase } from "./task.ts";

export interface Peer {
  readonly name: string;
  forecast(one: BacktestCase): Quantiles;
}

const NORMAL = SCORED_LEVELS.map(probit);

/** What relative scores are relative to: the last value for capacity, the last season for what has one. */
export const BASE: Peer = {
  name: "naive",
  forecast(one) {
    const { m, kind } = one.task;
    const seasonal = kind !== "capacity" && m > 1 && one.training.length > 2 * m;
    return naive(one, seasonal ? m : 1);
  },
};

export const PEERS: readonly Peer[] = [
  BASE,
  { name: "linear over h", forecast: (one) => linear(one, one.task.h) },
  { name: "linear over 4 h", forecast: (one) => linear(one, 4 * one.task.h) },
];

/** Value of a season ago; the error's spread grows with the square root of the seasons ahead. */
function naive({ training, task }: BacktestCase, m: number): Quantiles {
  const n = training.length;
  const changes = training.slice(m).map((value, at) => value - (training[at] ?? value));
  const spread = Math.sqrt(changes.reduce((sum, d) => sum + d * d, 0) / changes.length);
  return Array.from({ length: task.h }, (_, k) => {
    const middle = training[n - m + k % m] ?? NaN;
    const wide = spread * Math.sqrt(Math.floor(k / m) + 1);
    return bounded(NORMAL.map((z) => middle + wide * z), task.nonneg);
  });
}

/** Least squares over the last `look_back` points, with the prediction interval of the regression. */
function linear({ training, task }: BacktestCase, look_back: number): Quantiles {
  const window = training.slice(-Math.max(3, look_back));
  const n = window.length;
  const middle = (n - 1) / 2;
  const mean = window.reduce((sum, y) => sum + y, 0) / n;
  const sxx = n * (n * n - 1) / 12;
  const slope = window.reduce((sum, y, at) => sum + (at - middle) * (y - mean), 0) / sxx;
  const squares = window.reduce(
    (sum, y, at) => sum + (y - mean - slope * (at - middle)) ** 2,
    0,
  );
  const spread = Math.sqrt(squares / Math.max(1, n - 2));
  return Array.from({ length: task.h }, (_, k) => {
    const x = n + k - middle;
    const wide = spread * Math.sqrt(1 + 1 / n + x * x / sxx);
    return bounded(NORMAL.map((z) => mean + slope * x + wide * z), task.nonneg);
  });
}

function bounded(quantiles: readonly number[], nonneg: boolean): readonly number[] {
  return nonneg ? quantiles.map((value) => Math.max(0, value)) : quantiles;
}
