/** What goes into the forecaster and what comes out. Field names are snake_case: they leave as JSON. */
import type { ErrorRecord } from "../core/mod.ts";

/**
 * What is measured, and how it rolls up: a `level` keeps the last value of a slot (a fill level is a
 * state), a `rate` keeps the mean (a slot's rate is its work over its length).
 */
export const METRICS = {
  used_bytes: "level",
  allocated_bytes: "level",
  inodes_used: "level",
  write_bytes_per_s: "rate",
  read_bytes_per_s: "rate",
  write_iops: "rate",
  read_iops: "rate",
  flush_iops: "rate",
  changed_bytes_per_s: "rate",
  device_write_bytes_per_s: "rate",
  device_read_bytes_per_s: "rate",
  device_busy_ratio: "rate",
} as const satisfies Record<string, MetricKind>;

export type MetricKind = "level" | "rate";
export type Metric = keyof typeof METRICS;

/** Says whether a word is the name of a metric. */
export function isMetric(name: string): name is Metric {
  return Object.hasOwn(METRICS, name);
}

export interface Sample {
  readonly volume: string;
  readonly metric: Metric;
  /** Wall time, milliseconds since the epoch. */
  readonly at_ms: number;
  readonly value: number;
}

/** The quantile levels of a forecast that asks for none. */
export const DEFAULT_LEVELS: readonly number[] = [0.025, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975];

export interface ForecastRequest {
  readonly volume: string;
  readonly metric: Metric;
  readonly horizon_ms: number;
  /** Without it, chosen from horizon and sampling: at most 96 steps. */
  readonly step_ms?: number;
  /** In (0, 1). Default `DEFAULT_LEVELS`. */
  readonly levels?: readonly number[];
  /** In the metric's unit, for example the capacity in bytes: asks for the time to reach it. */
  readonly limit?: number;
  /** Samples after it are not looked at. Default: the clock's now. */
  readonly now_ms?: number;
}

export interface ForecastStep {
  readonly at_ms: number;
  /** In the metric's unit, one per level, ascending. */
  readonly values: readonly number[];
}

export interface ModelWeight {
  readonly name: string;
  readonly weight: number;
}

/** How the combined model did on the recent past: `null` where the history holds no evaluation window. */
export interface BacktestSummary {
  /** Non-overlapping spans of the horizon's length that were forecast with intervals made before them. */
  readonly windows: number;
  /** Share of actual values inside the 80 % interval. */
  readonly coverage80: number | null;
  /** Mean pinball loss over levels 0.1, 0.5 and 0.9, in the metric's unit. */
  readonly pinball: number | null;
}

export interface TimeToLimit {
  readonly limit: number;
  /** When each level's path reaches the limit; `null` when not within the horizon. */
  readonly by_level: readonly { readonly level: number; readonly at_ms: number | null }[];
  /** Share of simulated paths whose maximum up to the horizon reaches the limit. */
  readonly probability_within_horizon: number;
}

export interface Forecast {
  readonly volume: string;
  readonly metric: Metric;
  /** Time of the newest sample that was used. */
  readonly origin_ms: number;
  readonly step_ms: number;
  readonly horizon_ms: number;
  readonly levels: readonly number[];
  readonly steps: readonly ForecastStep[];
  /** Points of the regular series that the model saw. */
  readonly history_points: number;
  readonly model: readonly ModelWeight[];
  readonly backtest: BacktestSummary;
  readonly time_to_limit?: TimeToLimit;
  /** Wall time of the model run. */
  readonly fit_ms: number;
}

export interface HistoryQuery {
  readonly volume: string;
  readonly metric: Metric;
  readonly from_ms: number;
  readonly to_ms: number;
  readonly step_ms: number;
}

export interface HistoryPoint {
  readonly at_ms: number;
  readonly value: number;
}

/** A plain regular series, oldest first, for rolling-origin evaluation. */
export interface SeriesRequest {
  readonly values: readonly number[];
  readonly step_ms: number;
  readonly horizon_steps: number;
  readonly levels?: readonly number[];
  /** Seasonal periods in steps, tried beside none. Default: the day and the week where they fit. */
  readonly seasons?: readonly number[];
  /** Values below zero make no sense. Default true. */
  readonly non_negative?: boolean;
  readonly kind?: MetricKind;
  readonly limit?: number;
}

export interface SeriesForecast {
  readonly levels: readonly number[];
  /** `[step][level]`, both ascending. */
  readonly steps: readonly (readonly number[])[];
  readonly model: readonly ModelWeight[];
  readonly backtest: BacktestSummary;
  /** Share of simulated paths that reach `limit`; absent without a limit. */
  readonly probability?: number;
  readonly fit_ms: number;
}

/** What the parent asks the child process; one line of JSON each way. */
export type ChildRequest =
  | { readonly kind: "ingest"; readonly segments: readonly string[]; readonly now_ms: number }
  | { readonly kind: "forecast"; readonly request: ForecastRequest; readonly now_ms: number }
  | { readonly kind: "history"; readonly query: HistoryQuery }
  | { readonly kind: "series"; readonly request: SeriesRequest }
  | { readonly kind: "compact"; readonly now_ms: number };

export interface IngestResult {
  /** Highest sequence number that is durable in the database. */
  readonly ingested_seq: number;
  readonly samples: number;
}

export interface CompactResult {
  readonly database_bytes: number;
}

export interface ChildAnswers {
  readonly ingest: IngestResult;
  readonly forecast: Forecast;
  readonly history: readonly HistoryPoint[];
  readonly series: SeriesForecast;
  readonly compact: CompactResult;
}

export type ChildReply =
  | { readonly seq: number; readonly ok: true; readonly result: unknown }
  | { readonly seq: number; readonly ok: false; readonly error: ErrorRecord };

/** The child's first line. */
export type ChildHello =
  | { readonly ready: true; readonly set_aside: string | null }
  | { readonly ready: false; readonly error: ErrorRecord };
