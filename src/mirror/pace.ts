/**
 * How fast the copier may go: additive increase, multiplicative decrease on the application's own mean
 * latency against its baseline from times when nothing was copied. An idle application leaves all to the copier.
 */
import type { Clock } from "../core/mod.ts";
import type { Counters } from "../volume/mod.ts";

const PERIOD_MS = 100;
const FLOOR_BYTES_PER_S = 8 * 2 ** 20;
const STEP_BYTES_PER_S = 32 * 2 ** 20;
const START_BYTES_PER_S = 128 * 2 ** 20;
/** The application may be this much slower than its baseline before the copier yields. */
const TOLERANCE = 1.5;
const SLACK_MICROS = 100;
const FEW_REQUESTS = 5;

export interface PaceInput {
  readonly rate: number;
  readonly ceiling: number;
  /** Application requests in the period, and their mean latency in microseconds. */
  readonly requests: number;
  readonly meanMicros: number;
  /** 0: unknown. */
  readonly baselineMicros: number;
}

/** The copier's next rate in bytes per second. Pure. */
export function nextRate(input: PaceInput): number {
  const { rate, ceiling, requests, meanMicros, baselineMicros } = input;
  const limit = baselineMicros * TOLERANCE + SLACK_MICROS;
  let next: number;
  if (requests < FEW_REQUESTS) next = rate * 2;
  else if (baselineMicros > 0 && meanMicros > limit) next = rate * 0.7;
  else next = rate + STEP_BYTES_PER_S;
  return Math.min(Math.max(next, Math.min(FLOOR_BYTES_PER_S, ceiling)), ceiling);
}

export class Pacer {
  #rate: number;
  #tokens = 0;
  #refilledMs: number;
  #periodStartMs: number;
  #requests = 0;
  #micros = 0;
  #baselineMicros = 0;
  readonly #ceiling: number;

  /** @param ceiling bytes per second; null for none. */
  constructor(
    readonly counters: Counters,
    readonly clock: Clock,
    readonly sleep: (ms: number) => Promise<void>,
    ceiling: number | null,
  ) {
    this.#ceiling = ceiling ?? 64 * 2 ** 30;
    this.#rate = Math.min(START_BYTES_PER_S, this.#ceiling);
    this.#refilledMs = this.#periodStartMs = clock.monotonicMs();
    this.#takePeriod();
  }

  get rateBytesPerSecond(): number {
    return this.#rate;
  }

  /** Learns how fast the application is while nothing is copied. Call it when a pause ends. */
  observeUndisturbed(): void {
    const { requests, meanMicros } = this.#takePeriod();
    if (requests < FEW_REQUESTS) return;
    this.#baselineMicros = this.#baselineMicros === 0
      ? meanMicros
      : this.#baselineMicros * 0.7 + meanMicros * 0.3;
    this.#tokens = 0;
    this.#refilledMs = this.clock.monotonicMs();
  }

  /** Resolves when `bytes` more may be copied. */
  async admit(bytes: number): Promise<void> {
    for (;;) {
      const now = this.clock.monotonicMs();
      if (now - this.#periodStartMs >= PERIOD_MS) {
        const period = this.#takePeriod();
        this.#rate = nextRate({
          rate: this.#rate,
          ceiling: this.#ceiling,
          baselineMicros: this.#baselineMicros,
          ...period,
        });
      }
      const earned = (now - this.#refilledMs) / 1000 * this.#rate;
      this.#refilledMs = now;
      this.#tokens = Math.min(this.#tokens + earned, this.#rate / 10 + bytes);
      if (this.#tokens >= bytes) {
        this.#tokens -= bytes;
        return;
      }
      await this.sleep(Math.min(20, Math.max(1, (bytes - this.#tokens) / this.#rate * 1000)));
    }
  }

  #takePeriod(): { requests: number; meanMicros: number } {
    const { transfers: requests, transferMicros: micros } = this.counters;
    const period = {
      requests: requests - this.#requests,
      meanMicros: requests > this.#requests
        ? (micros - this.#micros) / (requests - this.#requests)
        : 0,
    };
    this.#requests = requests;
    this.#micros = micros;
    this.#periodStartMs = this.clock.monotonicMs();
    return period;
  }
}
