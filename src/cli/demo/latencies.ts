/** The application's own synchronous writes, by time: before anything was mirrored, and around the switch. */

/** Wall time in milliseconds, microseconds that it took. */
export type Latency = readonly [number, number];

export interface LatencySummary {
  readonly count: number;
  readonly p99_us: number;
  readonly max_us: number;
}

/** How far around the moment of the switch its effect is looked for. */
const AROUND_MS = 2000;

/** Those that ended before `before_ms`. */
export function summarizeBefore(latencies: readonly Latency[], before_ms: number): LatencySummary {
  return summarize(latencies.filter(([at_ms]) => at_ms < before_ms));
}

/** Those that ended near `at_ms`. */
export function summarizeAround(latencies: readonly Latency[], at_ms: number): LatencySummary {
  return summarize(latencies.filter(([one_ms]) => Math.abs(one_ms - at_ms) <= AROUND_MS));
}

/** The 99th percentile is the value at rank ⌈0.99 n⌉ (nearest rank). Zeroes for none. */
function summarize(latencies: readonly Latency[]): LatencySummary {
  const sorted = latencies.map(([, us]) => us).sort((a, b) => a - b);
  return {
    count: sorted.length,
    p99_us: sorted[Math.ceil(sorted.length * 0.99) - 1] ?? 0,
    max_us: sorted.at(-1) ?? 0,
  };
}
