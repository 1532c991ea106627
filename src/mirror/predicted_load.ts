/** What is predicted of the application, step by step, and questions about it. Pure. */

/** Up to this factor it is about as quiet. */
const ABOUT = 1.4;

/** Predicted for [from_ms, until_ms), the application alone. */
export interface LoadStep {
  readonly from_ms: number;
  readonly until_ms: number;
  /** Written; `high` is the upper quantile. */
  readonly write_bytes_per_s: number;
  readonly write_high_bytes_per_s: number;
  /** Reads and writes. */
  readonly load_iops: number;
}

/** Requests per second over [from, until), as far as they are predicted; undefined where they are not at all. */
export function meanLoad(
  predicted: readonly LoadStep[],
  fromMs: number,
  untilMs: number,
): number | undefined {
  let requests = 0, coveredMs = 0;
  for (const { from_ms, until_ms, load_iops } of predicted) {
    const ms = Math.min(until_ms, Math.max(untilMs, fromMs + 1)) - Math.max(from_ms, fromMs);
    if (ms <= 0) continue;
    requests += load_iops * ms;
    coveredMs += ms;
  }
  return coveredMs === 0 ? undefined : requests / coveredMs;
}

/** Until when it is predicted to be about as quiet as at that moment; for ever where nothing is predicted. */
export function calmUntil(predicted: readonly LoadStep[], atMs: number): number {
  const first = predicted.findIndex((step) => step.until_ms > atMs), here = predicted[first];
  if (here === undefined) return Infinity;
  let untilMs = here.until_ms;
  for (const step of predicted.slice(first + 1)) {
    if (step.load_iops > here.load_iops * ABOUT) break;
    untilMs = step.until_ms;
  }
  return untilMs;
}
