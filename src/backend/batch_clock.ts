/**
 * Time for the hot path: read at most once between two waits for the kernel. What happens within one batch
 * of completions happens at one time; a latency is wrong by less than a batch takes to be worked off.
 */
import type { Clock } from "../core/mod.ts";

/** Whose waits separate the batches: the reactor. */
export interface Batches {
  readonly batches: number;
}

export class BatchClock implements Clock {
  #batch = -1;
  #monotonicMs = 0;

  constructor(readonly clock: Clock, readonly source: Batches) {}

  monotonicMs(): number {
    if (this.source.batches !== this.#batch) {
      this.#batch = this.source.batches;
      this.#monotonicMs = this.clock.monotonicMs();
    }
    return this.#monotonicMs;
  }

  nowMs(): number {
    return this.clock.nowMs();
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return this.clock.sleep(ms, signal);
  }
}
