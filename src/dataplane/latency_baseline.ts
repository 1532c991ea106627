/** The application's latency as it was before a mirror asked anything of its writes, over the last minute. */
import type { Mirror } from "../mirror/mod.ts";
import type { Counters } from "../volume/mod.ts";

const SNAPSHOTS = 60;

export class LatencyBaseline {
  #p99 = 0;
  readonly #snapshots: Float64Array[] = [];

  constructor(readonly counters: Counters) {}

  /** Microseconds, as last taken; 0 when it never was. */
  get p99(): number {
    return this.#p99;
  }

  /** Remembers the histogram of now: call it once a second. */
  keepSnapshot(): void {
    this.#snapshots.push(this.counters.latencySnapshot());
    if (this.#snapshots.length > SNAPSHOTS) this.#snapshots.shift();
  }

  /** Takes the 99th percentile, unless the mirror is in the way of writes already. */
  takeBefore(mirror: Mirror): void {
    if (mirror.state === "ready" || mirror.state === "converging") return;
    const { counters } = this;
    const oldest = this.#snapshots[0] ?? new Float64Array(counters.latencySnapshot().length);
    this.#p99 = counters.quantileSince(oldest, 0.99);
  }
}
