/** Runs back-tests: reads a task's series, has the models forecast each case in child processes, scores. */
import {
  type Clock,
  type Log,
  need,
  seededRng,
  type SelfCommand,
  selfCommand,
} from "../../core/mod.ts";
import { ForecasterProcess } from "../process.ts";
import { BASE, PEERS } from "./peers.ts";
import {
  type Quantiles,
  type Score,
  SCORED_LEVELS,
  scoreOf,
  summarise,
  type Summary,
} from "./score.ts";
import { parseSeries, readText, rollUp } from "./series.ts";
import { type BacktestCase, type BacktestTask, casesOf } from "./task.ts";

export interface BacktestOptions {
  readonly clock: Clock;
  readonly log: Log;
  /** Child processes that forecast at a time. Default: one per processor. */
  readonly processes?: number;
  readonly signal?: AbortSignal;
  /** Default: this program's own `internal forecaster`. */
  readonly command?: SelfCommand;
  onProgress?(done: number, all: number): void;
}

export interface BacktestForecast {
  readonly case: BacktestCase;
  /** Clipped at zero where the task says so; in the order of `SCORED_LEVELS`. */
  readonly quantiles: Quantiles;
  readonly fit_ms: number;
}

/** One method's row in a task's table. */
export interface MethodSummary extends Summary {
  readonly method: string;
  /** Mean, wall time; null for peers, which cost next to nothing. */
  readonly fit_ms: number | null;
}

/** The cases of a task, from the files below `data`. @throws {PsmaError} not-found/file, io/read, usage/series */
export async function loadCases(task: BacktestTask, data: string): Promise<BacktestCase[]> {
  const text = await readText(`${data}/${task.set}/${task.file}`);
  const series = parseSeries(text, { value: task.value });
  return [...series].flatMap(([name, points]) => casesOf(task, name, rollUp(points, task)));
}

const TIMEOUT_MS = 120_000;

/** Forecasts every case. @returns in the order of the cases. @throws {PsmaError} as a forecaster does. */
export async function forecastCases(
  cases: readonly BacktestCase[],
  options: BacktestOptions,
): Promise<BacktestForecast[]> {
  const { processes = navigator.hardwareConcurrency, signal, onProgress } = options;
  const forecasts: BacktestForecast[] = [];
  const next = cases.entries();
  let done = 0;
  const work = async () => {
    const process = await ForecasterProcess.start({
      command: options.command ?? selfCommand(["internal", "forecaster"]),
      clock: options.clock,
      log: options.log,
      timeout_ms: TIMEOUT_MS,
    });
    try {
      for (const [index, one] of next) {
        signal?.throwIfAborted();
        forecasts[index] = await forecastCase(process, one);
        onProgress?.(++done, cases.length);
      }
    } finally {
      await process.kill();
    }
  };
  const workers = Math.max(1, Math.min(processes, cases.length));
  await Promise.all(Array.from({ length: workers }, work));
  return forecasts;
}

async function forecastCase(
  process: ForecasterProcess,
  one: BacktestCase,
): Promise<BacktestForecast> {
  const { task, training } = one;
  const { steps, fit_ms } = await process.ask({
    kind: "series",
    request: {
      values: training,
      step_ms: task.step_s * 1000,
      horizon_steps: task.h,
      levels: SCORED_LEVELS,
      seasons: [task.m, task.m2].filter((m) => m > 1),
      non_negative: task.nonneg,
      kind: task.kind === "capacity" ? "level" : "rate",
    },
  });
  return { case: one, quantiles: steps, fit_ms };
}

/** The table of one task: our forecasts and the peers', each against the base. */
export function compare(forecasts: readonly BacktestForecast[]): MethodSummary[] {
  const cases = forecasts.map((one) => one.case);
  const peers = PEERS.map((peer) => ({
    peer,
    scores: cases.map((one) => scoreOf(one, peer.forecast(one))),
  }));
  const base = need(peers.find(({ peer }) => peer === BASE), "the base among the peers").scores;
  const row = (method: string, scores: readonly Score[], fit_ms: number | null): MethodSummary => ({
    method,
    ...summarise(bySeries(cases, scores, base), seededRng(1)),
    fit_ms,
  });
  const own = forecasts.map((one) => scoreOf(one.case, one.quantiles));
  const spent = forecasts.reduce((sum, { fit_ms }) => sum + fit_ms, 0);
  return [
    row("psma", own, spent / forecasts.length),
    ...peers.map(({ peer, scores }) => row(peer.name, scores, null)),
  ];
}

function bySeries(
  cases: readonly BacktestCase[],
  own: readonly Score[],
  base: readonly Score[],
): { series: string; own: Score[]; base: Score[] }[] {
  const indexes = Map.groupBy(cases.keys(), (index) => cases[index]?.series ?? "");
  const pick = (scores: readonly Score[], at: readonly number[]) =>
    at.flatMap((index) => scores[index] ?? []);
  return [...indexes].map(([series, at]) => ({ series, own: pick(own, at), base: pick(base, at) }));
}

const HEADER = "task,series,origin,k,q025,q10,q50,q90,q975,fit_ms";

/** One line per step. Numbers print as JavaScript reads them back exactly. */
export function* csvLines(forecasts: readonly BacktestForecast[]): Generator<string> {
  yield HEADER;
  for (const { case: one, quantiles, fit_ms } of forecasts) {
    for (const [at, values] of quantiles.entries()) {
      yield [one.task.task, quoted(one.series), one.origin, at + 1, ...values, fit_ms.toFixed(1)]
        .join(",");
    }
  }
}

function quoted(text: string): string {
  return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
