/** A clock that stands still: sleeping ends only with the signal. */
import type { Clock } from "../../src/core/mod.ts";

export const stillClock: Clock = {
  nowMs: () => Date.UTC(2030, 0, 1),
  monotonicMs: () => 0,
  sleep: (_ms, signal) =>
    new Promise((_, reject) =>
      signal?.addEventListener("abort", () => reject(signal.reason), { once: true })
    ),
};
