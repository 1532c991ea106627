/** When a mirror that is to be ready always tries it again: ever more rarely where it does not last. */
import type { Clock } from "../core/mod.ts";

const PAUSE_MS_MIN = 500, PAUSE_MS_MAX = 60_000;
/** What lasted so long begins anew with the shortest pause. */
const LASTED_MS = 60_000;

export class LockStep {
  #notBeforeMs = 0;
  #sinceMs = -Infinity;
  #pauseMs = PAUSE_MS_MIN;

  constructor(readonly clock: Pick<Clock, "monotonicMs">) {}

  /** Not above 0: it may be tried. */
  get untilMs(): number {
    return this.#notBeforeMs - this.clock.monotonicMs();
  }

  /** Somebody asked for it. */
  now(): void {
    this.#notBeforeMs = 0;
  }

  reached(): void {
    this.#sinceMs = this.clock.monotonicMs();
  }

  /** It ended. Each time that it did not last costs the application some waiting. */
  putOff(): void {
    const now = this.clock.monotonicMs(), lasted = now - this.#sinceMs > LASTED_MS;
    this.#pauseMs = lasted ? PAUSE_MS_MIN : Math.min(2 * this.#pauseMs, PAUSE_MS_MAX);
    this.#notBeforeMs = now + this.#pauseMs;
  }
}
