/** What a person asks to be back-tested: the tasks of a file, or one history of his own. */
import { type Clock, type Log, PsmaError } from "../../core/mod.ts";
import { seasonsOf } from "../forecasting.ts";
import { isMetric, METRICS } from "../types.ts";
import {
  type BacktestForecast,
  compare,
  csvLines,
  forecastCases,
  loadCases,
  type MethodSummary,
} from "./run.ts";
import { parseSeries, type Point, readText, rollUp, usualStep } from "./series.ts";
import { type BacktestCase, type BacktestTask, casesOf, parseTasks } from "./task.ts";

export interface TasksOrder {
  readonly tasks_file: string;
  /** Directory that holds the tasks' sets. */
  readonly data: string;
  /** Only these; all when empty. */
  readonly only: readonly string[];
  /** Write the forecasts there and score nothing. */
  readonly forecasts: string | null;
}

/** A history that is not part of a task file: its points, or a CSV file of one or more series. */
export interface HistoryOrder {
  readonly history: { readonly file: string; readonly value: string | null } | {
    readonly name: string;
    readonly points: readonly Point[];
  };
  /** A metric's full name: says whether a slot keeps its last value or its mean. */
  readonly metric: string;
  /** Null: a tenth of the history. */
  readonly horizon_s: number | null;
  /** Null: the usual distance of points. */
  readonly step_s: number | null;
  readonly origins: number;
}

export interface BacktestTable {
  readonly task: string;
  readonly horizon_steps: number;
  readonly step_s: number;
  readonly methods: readonly MethodSummary[];
}

export interface Surroundings {
  readonly clock: Clock;
  readonly log: Log;
  readonly signal?: AbortSignal;
  onProgress?(task: string, done: number, all: number): void;
}

/** @throws {PsmaError} usage/tasks, usage/series, usage/backtest, not-found/file, io/read, io/write */
export async function backtestTasks(
  order: TasksOrder,
  around: Surroundings,
): Promise<BacktestTable[]> {
  const tasks = parseTasks(await readText(order.tasks_file));
  const missing = order.only.find((name) => !tasks.some(({ task }) => task === name));
  if (missing !== undefined) {
    const known = tasks.map(({ task }) => task).join(", ");
    throw new PsmaError("usage/tasks", `Cannot back-test: there is no task ${missing}`, {
      hint: `The tasks are ${known}.`,
    });
  }
  const chosen = tasks.filter(({ task }) => order.only.length === 0 || order.only.includes(task));
  const all: BacktestForecast[] = [];
  const tables: BacktestTable[] = [];
  for (const task of chosen) {
    const forecasts = await forecastAll(task.task, await loadCases(task, order.data), around);
    if (order.forecasts === null) tables.push(tableOf(task, forecasts));
    else all.push(...forecasts);
  }
  if (order.forecasts !== null) await writeLines(order.forecasts, csvLines(all));
  return tables;
}

/** @throws {PsmaError} usage/series, usage/backtest, not-found/file, io/read, forecast/short-history */
export async function backtestHistory(
  order: HistoryOrder,
  around: Surroundings,
): Promise<BacktestTable[]> {
  const { history, metric } = order;
  if (!isMetric(metric)) {
    throw new PsmaError("usage/metric", `Cannot back-test: ${metric} is not a metric`, {
      hint: `Metrics: ${Object.keys(METRICS).join(", ")}.`,
    });
  }
  const series = "points" in history
    ? new Map([[history.name, history.points]])
    : parseSeries(await readText(history.file), { value: history.value ?? undefined });
  const name = "points" in history ? history.name : history.file;
  const first = [...series.values()].sort((a, b) => b.length - a.length)[0] ?? [];
  const task = taskOf(name, first, order, METRICS[metric] === "level");
  const cases = [...series].flatMap(([one, points]) => casesOf(task, one, rollUp(points, task)));
  return [tableOf(task, await forecastAll(name, cases, around))];
}

const HISTORY_MIN = 16;
const HISTORY_MAX = 2000;
const DAY_S = 86_400;

function taskOf(
  name: string,
  points: readonly Point[],
  { horizon_s, step_s, origins }: HistoryOrder,
  is_level: boolean,
): BacktestTask {
  const step = Math.max(1, Math.round(step_s ?? usualStep(points)));
  const agg = is_level ? "last" : "mean";
  const length = rollUp(points, { step_s: step, agg }).length;
  const h = Math.max(1, horizon_s === null ? Math.floor(length / 10) : Math.ceil(horizon_s / step));
  const [m = 1, m2 = 0] = seasonsOf([DAY_S / step, 7 * DAY_S / step], length - h);
  return {
    task: name,
    set: "",
    file: "",
    value: "",
    step_s: step,
    agg,
    m,
    m2,
    h,
    n_min: HISTORY_MIN,
    n_max: HISTORY_MAX,
    n_origins: origins,
    nonneg: true,
    kind: is_level ? "capacity" : "io",
  };
}

async function forecastAll(
  name: string,
  cases: readonly BacktestCase[],
  { clock, log, signal, onProgress }: Surroundings,
): Promise<BacktestForecast[]> {
  if (cases.length === 0) {
    throw new PsmaError(
      "usage/backtest",
      `Cannot back-test ${name}: no series is long enough, or none ever changes`,
      { hint: "Give it a longer history, a shorter --horizon, or a finer --step." },
    );
  }
  return await forecastCases(cases, {
    clock,
    log,
    ...(signal === undefined ? {} : { signal }),
    onProgress: (done, all) => onProgress?.(name, done, all),
  });
}

function tableOf(task: BacktestTask, forecasts: readonly BacktestForecast[]): BacktestTable {
  return {
    task: task.task,
    horizon_steps: task.h,
    step_s: task.step_s,
    methods: compare(forecasts),
  };
}

async function writeLines(path: string, lines: Iterable<string>): Promise<void> {
  try {
    await Deno.writeTextFile(
      path,
      ReadableStream.from(lines).pipeThrough(
        new TransformStream({ transform: (line, out) => out.enqueue(`${line}\n`) }),
      ),
    );
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new PsmaError("io/write", `Cannot write ${path}: ${reason}`);
  }
}
