/** What was forecast when it tripped, to be held against what came. */
import type { Forecast } from "../../api/client.ts";

export interface Prediction {
  /** The quantile level that the plan acts on. */
  readonly level: number;
  /** The time that the values are for. */
  readonly at_ms: number;
  /** How far ahead that was. */
  readonly ahead_ms: number;
  readonly upper_bytes: number;
  readonly median_bytes: number;
  /** Null until that time has come. */
  readonly actual_bytes: number | null;
}

/**
 * Picks the step nearest to `ahead_ms` after the forecast's origin.
 * @returns undefined when the forecast lacks the levels.
 */
export function predictionOf(
  forecast: Forecast,
  { level, ahead_ms }: { level: number; ahead_ms: number },
): Prediction | undefined {
  const upper = nearestIndex(forecast.levels, level);
  const median = nearestIndex(forecast.levels, 0.5);
  const times = forecast.steps.map(({ at_ms }) => at_ms);
  const step = forecast.steps[nearestIndex(times, forecast.origin_ms + ahead_ms)];
  const upper_bytes = step?.values[upper];
  const median_bytes = step?.values[median];
  if (step === undefined || upper_bytes === undefined || median_bytes === undefined) {
    return undefined;
  }
  return {
    level: forecast.levels[upper] ?? level,
    at_ms: step.at_ms,
    ahead_ms: step.at_ms - forecast.origin_ms,
    upper_bytes,
    median_bytes,
    actual_bytes: null,
  };
}

function nearestIndex(values: readonly number[], wanted: number): number {
  let best = 0;
  values.forEach((value, at) => {
    if (Math.abs(value - wanted) < Math.abs((values[best] ?? Infinity) - wanted)) best = at;
  });
  return best;
}
