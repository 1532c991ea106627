/** What the application's requests went through around a cutover: from here to whenever it is asked. */
import type { Counters, LatencyReport } from "../volume/mod.ts";

export class CutoverWindow {
  readonly #snapshot: Float64Array;
  readonly #errors: number;

  /** Opens the window now. @param baselineP99 microseconds, from before anything was done. */
  constructor(readonly counters: Counters, readonly baselineP99: number) {
    this.#snapshot = counters.latencySnapshot();
    this.#errors = counters.errors;
    counters.resetWindowMax();
  }

  get ioErrors(): number {
    return this.counters.errors - this.#errors;
  }

  latency(): LatencyReport {
    const window_max = Math.round(this.counters.windowMax);
    // A quantile is its bin's upper edge, which may lie above the largest value in the bin.
    const p99 = Math.round(this.counters.quantileSince(this.#snapshot, 0.99));
    return {
      baseline_p99: Math.round(this.baselineP99),
      window_p99: Math.min(window_max, p99),
      window_max,
    };
  }
}
