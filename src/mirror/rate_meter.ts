/** How fast bytes were copied lately, measured whenever someone looks. */
import type { Clock } from "../core/mod.ts";

const SHORTEST_MS = 200, LONGEST_MS = 60_000;

export class RateMeter {
  #rate = 0;
  #markMs = 0;
  #markBytes = 0;

  constructor(readonly clock: Clock) {}

  /** @param bytes copied in all. @returns bytes per second since the last look that was not too recent. */
  measure(bytes: number): number {
    const now = this.clock.monotonicMs(), elapsed = now - this.#markMs;
    if (elapsed >= SHORTEST_MS) {
      this.#rate = elapsed > LONGEST_MS ? 0 : (bytes - this.#markBytes) / elapsed * 1000;
      this.#markMs = now;
      this.#markBytes = bytes;
    }
    return this.#rate;
  }
}
