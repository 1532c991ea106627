/** Forecasts from samples: a journal in this process, DuckDB and the models in a child process. */
export { backtestHistory, backtestTasks } from "./backtest/order.ts";
export { type Forecaster, type ForecasterOptions, openForecaster } from "./forecaster.ts";
export {
  type Forecast,
  type HistoryQuery,
  isMetric,
  type Metric,
  METRICS,
  type Sample,
  type SeriesForecast,
  type SeriesRequest,
} from "./types.ts";

/**
 * The child process's whole life: `internal forecaster [--dir DIR]`. DuckDB is loaded only here.
 * @returns the exit code.
 */
export async function serveForecaster(args: readonly string[]): Promise<number> {
  const { serveLines } = await import("./serve.ts");
  const at = args.indexOf("--dir");
  return await serveLines({ dir: at < 0 ? undefined : args[at + 1] });
}
