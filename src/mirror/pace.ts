/**
 * How fast the copier may go, and in which steps. An idle application leaves all to it. While the application
 * works, small steps are let in one by one, at a rate that rises slowly while the application is as fast as
 * without a mirror and falls faster when it is not.
 *
 * What "without a mirror" means is measured: before the mirror began where that was seen, else in short stretches
 * without copies; the latter go on for as long as copying does, because the application changes its ways.
 * Writes that go to both sides are slower by themselves: what they are like alone is measured apart.
 * A request waits in its socket where no counter sees it while the thread copies, so steps are short and apart.
 * It waits there, too, while the machine's processors do other work, the copies' at the store among them: how late
 * the thread wakes from its own sleeps tells for how long.
 */
import type { Clock } from "../core/mod.ts";
import type { Counters, MirrorTerms } from "../volume/mod.ts";

const MIB = 2 ** 20;
/** One step of the copier: what the thread does before it looks at the application's requests again. */
export const IDLE_STEP_BYTES = 256 * 1024, BUSY_STEP_BYTES = 64 * 1024;
const UNLIMITED = 64 * 2 ** 30;
/** Never less, however the application fares: a mirror that never ends protects nobody. */
export const FLOOR_BYTES_PER_S: number = 8 * MIB;
/** That every write goes to the target, too, costs the application more than copies do: this is to be over soon. */
const FOLLOWING_FLOOR_BYTES_PER_S = 24 * MIB;
const START_BYTES_PER_S = 16 * MIB,
  STEP_UP_BYTES_PER_S = 2 * MIB,
  STEP_UP = 0.1,
  BUSY_BYTES_PER_S_MAX = 256 * MIB;
/** Fewer operations per second alone may be the application's own choice: no reason to go below this rate. */
const POLITE_BYTES_PER_S = 16 * MIB;
const PERIOD_MS = 250, PERIOD_MS_MAX = 500, ENOUGH_REQUESTS = 500, FEW_REQUESTS = 5;
/** The application works while its last request is no longer ago. */
const IDLE_AFTER_MS = 20;
/** Where nothing is copied, to see how fast the application is then. */
const LOOK_EVERY_MS = 4000, LOOK_MS = 120;
const SLEEP_MS_MIN = 0.2, SLEEP_MS_MAX = 10, LOOK_SLEEP_MS = 1;
/** Of the undisturbed figures: from where on the copier yields, and up to where it may go faster. */
const P99_YIELD = 1.3, P99_RISE = 1.15, MEAN_YIELD = 1.2, IOPS_YIELD = 0.97, LATE_YIELD = 1.3;
const LATE_LEVEL = 0.95, LATE_SAMPLES_MIN = 20, LATE_SAMPLES_MAX = 4096;
/** What a histogram's bins and a clock read once per batch cannot tell apart. */
const SLACK_MICROS = 20;
/** Timers are no more exact than this. */
const LATE_SLACK_MICROS = 60;

/** What the application's reads and writes were like in some stretch of time. */
export interface ApplicationLoad {
  readonly requests: number;
  readonly iops: number;
  readonly meanMicros: number;
  readonly p99Micros: number;
}

/** As the operator or the schedule has them. */
export interface PaceLimits {
  readonly floor_bytes_per_s: number;
  /** Null for none. It is never exceeded, and goes before the floor. */
  readonly ceiling_bytes_per_s: number | null;
}

/** What a mirror's terms say about its rate. */
export function limitsOf(terms: MirrorTerms): PaceLimits {
  return {
    floor_bytes_per_s: terms.min_rate_bytes_per_s,
    ceiling_bytes_per_s: terms.max_rate_bytes_per_s,
  };
}

export interface PaceInput {
  readonly rate: number;
  readonly floor: number;
  readonly ceiling: number;
  readonly now: ApplicationLoad;
  /** Undefined: unknown. */
  readonly undisturbed: ApplicationLoad | undefined;
  /** How late the thread wakes, in microseconds; undefined: unknown. */
  readonly late?: { readonly now: number; readonly undisturbed: number } | undefined;
}

/** The copier's next rate beside a working application, in bytes per second. Pure. */
export function nextRate(
  { rate, floor, ceiling, now, undisturbed, late }: PaceInput,
): number {
  const bounded = (next: number) =>
    Math.min(Math.max(Math.min(next, BUSY_BYTES_PER_S_MAX), floor), ceiling);
  if (now.requests < FEW_REQUESTS || undisturbed === undefined) {
    return bounded(faster(rate));
  }
  const isSlow = now.p99Micros > undisturbed.p99Micros * P99_YIELD + SLACK_MICROS ||
    now.meanMicros > undisturbed.meanMicros * MEAN_YIELD + SLACK_MICROS ||
    (late !== undefined && late.now > late.undisturbed * LATE_YIELD + LATE_SLACK_MICROS);
  if (isSlow) return bounded(rate * 0.7);
  if (now.iops < undisturbed.iops * IOPS_YIELD) {
    return bounded(rate <= POLITE_BYTES_PER_S ? rate : Math.max(POLITE_BYTES_PER_S, rate * 0.8));
  }
  const isCalm = now.p99Micros <= undisturbed.p99Micros * P99_RISE + SLACK_MICROS;
  return bounded(isCalm ? faster(rate) : rate);
}

function faster(rate: number): number {
  return rate + Math.max(STEP_UP_BYTES_PER_S, rate * STEP_UP);
}

/** Where a stretch of time begins. */
export class LoadMark {
  readonly #requests: number;
  readonly #micros: number;
  readonly #latencies: Float64Array;

  constructor(readonly counters: Counters, readonly atMs: number) {
    this.#requests = counters.transfers;
    this.#micros = counters.transferMicros;
    this.#latencies = counters.latencySnapshot();
  }

  /** Reads and writes since then. */
  get requests(): number {
    return this.counters.transfers - this.#requests;
  }

  /** From there until now. */
  until(nowMs: number): ApplicationLoad {
    const { counters, requests } = this;
    return {
      requests,
      iops: requests / Math.max(1, nowMs - this.atMs) * 1000,
      meanMicros: requests > 0 ? (counters.transferMicros - this.#micros) / requests : 0,
      p99Micros: counters.quantileSince(this.#latencies, 0.99),
    };
  }
}

export interface PacerOptions {
  readonly counters: Counters;
  readonly clock: Pick<Clock, "monotonicMs">;
  readonly sleep: (ms: number) => Promise<void>;
  readonly limits: PaceLimits;
  /** The application as it was before the mirror began, where that was seen. */
  readonly undisturbed?: ApplicationLoad | undefined;
  /** Whether every write goes to both sides now. */
  readonly isWriteThrough: () => boolean;
  /** Whether writes go to both sides and wait for the source alone. */
  readonly isFollowing: () => boolean;
  /** What whoever waits for the copier's end needs per second to have it in time; 0: nobody waits, or long enough. */
  readonly neededBytesPerSecond: () => number;
}

export class Pacer {
  readonly #options: PacerOptions;
  /** The operator's or the schedule's. */
  #floor = 0;
  #ceiling = UNLIMITED;
  #rate = START_BYTES_PER_S;
  #tokens = 0;
  #refilledMs: number;
  /** Of writes to the source alone, and of those to both sides. */
  readonly #undisturbed = new Map<boolean, ApplicationLoad>();
  /** How late sleeps of this period ended, and usually end while nothing is copied. Microseconds. */
  #lateMicros: number[] = [];
  #undisturbedLateMicros: number | undefined;
  #wasWriteThrough: boolean;
  #period: LoadMark;
  #transfers: number;
  #lastRequestMs = -Infinity;
  /** Nothing is copied from `#look` on, until the next is due at `#lookAtMs`. */
  #look: LoadMark | undefined;
  #lookAtMs: number;
  #queue: Promise<void> = Promise.resolve();

  constructor(options: PacerOptions) {
    const { counters, clock } = options, now = clock.monotonicMs();
    this.#options = options;
    if (options.undisturbed !== undefined) this.#undisturbed.set(false, options.undisturbed);
    this.#wasWriteThrough = options.isWriteThrough();
    this.#refilledMs = now;
    this.#transfers = counters.transfers;
    this.#period = new LoadMark(counters, now);
    this.#lookAtMs = now;
    if (options.undisturbed !== undefined) this.#lastRequestMs = now;
    this.setLimits(options.limits);
  }

  /** They hold from the next step on. */
  setLimits({ floor_bytes_per_s, ceiling_bytes_per_s }: PaceLimits): void {
    this.#floor = floor_bytes_per_s;
    this.#ceiling = ceiling_bytes_per_s ?? UNLIMITED;
    this.#rate = Math.min(Math.max(this.#rate, this.#kept), this.#ceiling);
  }

  /** What may be copied per second at the moment. */
  get rateBytesPerSecond(): number {
    return this.#rateWhen(this.#isBusy());
  }

  /** How large the next step may be: a request that comes meanwhile waits for its end. */
  get stepBytes(): number {
    return this.#isBusy() ? BUSY_STEP_BYTES : IDLE_STEP_BYTES;
  }

  /** Learns how fast the application is while nothing is copied. Call it when a pause ends. */
  observeUndisturbed(): void {
    const now = this.#options.clock.monotonicMs();
    this.#learn(this.#period.until(now));
    this.#beginPeriod(now);
    this.#tokens = 0;
    this.#refilledMs = now;
  }

  /** Resolves when `bytes` more may be copied, or soon when it `isOver`. One after the other is let in. */
  async admit(bytes: number, isOver: () => boolean = () => false): Promise<void> {
    const before = this.#queue;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#queue = promise;
    await before;
    try {
      while (!isOver()) {
        const waitMs = this.#waitMs();
        if (waitMs <= 0) {
          this.#tokens -= bytes;
          return;
        }
        await this.#sleep(Math.max(SLEEP_MS_MIN, waitMs));
      }
    } finally {
      resolve();
    }
  }

  async #sleep(wantedMs: number) {
    const { clock, sleep } = this.#options, fromMs = clock.monotonicMs();
    const ms = Math.min(wantedMs, this.#look === undefined ? SLEEP_MS_MAX : LOOK_SLEEP_MS);
    await sleep(ms);
    // A period lasts for as long as the application rests.
    if (this.#lateMicros.length === LATE_SAMPLES_MAX) this.#lateMicros = [];
    this.#lateMicros.push((clock.monotonicMs() - fromMs - ms) * 1000);
  }

  /** Of what was admitted, so much was not copied. */
  giveBack(bytes: number): void {
    this.#tokens += bytes;
  }

  #rateWhen(isBusy: boolean): number {
    return isBusy ? Math.max(this.#rate, this.#lowest) : this.#ceiling;
  }

  /** Without being told. */
  get #least(): number {
    return this.#options.isFollowing() ? FOLLOWING_FLOOR_BYTES_PER_S : FLOOR_BYTES_PER_S;
  }

  /** Somebody wants more than that, whatever the application bears. */
  get #isForced(): boolean {
    return this.#lowest > this.#least;
  }

  get #kept(): number {
    return Math.max(this.#least, this.#floor);
  }

  /** Beside a working application. */
  get #lowest(): number {
    const needed = Math.min(this.#options.neededBytesPerSecond(), BUSY_BYTES_PER_S_MAX);
    return Math.min(Math.max(this.#kept, needed), this.#ceiling);
  }

  #isBusy(): boolean {
    const { counters, clock } = this.#options, { transfers } = counters;
    const now = clock.monotonicMs();
    if (transfers !== this.#transfers) {
      this.#transfers = transfers;
      // After a rest the application is met anew: what it bore before is not known to hold.
      if (now - this.#lastRequestMs > PERIOD_MS) this.#meet(now);
      this.#lastRequestMs = now;
    }
    return now - this.#lastRequestMs < IDLE_AFTER_MS;
  }

  #meet(now: number) {
    const rate = Math.max(Math.min(this.#rate, START_BYTES_PER_S), this.#lowest);
    this.#rate = Math.min(rate, this.#ceiling);
    this.#tokens = Math.min(this.#tokens, 0);
    this.#refilledMs = now;
    this.#beginPeriod(now);
  }

  /** How long nothing may be copied; not above 0 when it may at once. */
  #waitMs(): number {
    const isBusy = this.#isBusy(), now = this.#options.clock.monotonicMs();
    if (isBusy) {
      this.#noticeWriteThrough(now);
      const lookMs = this.#lookMs(now);
      if (lookMs > 0) return lookMs;
      this.#adjust(now);
    } else this.#look = undefined;
    if (!isBusy && this.#ceiling === UNLIMITED) return this.#tokens = 0;
    const rate = this.#rateWhen(isBusy);
    // What was left out earns nothing: bursts are what hurts. But who must keep a rate makes up for a late wake-up.
    const most = isBusy && this.#isForced ? BUSY_STEP_BYTES : 0;
    this.#tokens = Math.min(this.#tokens + (now - this.#refilledMs) / 1000 * rate, most);
    this.#refilledMs = now;
    return -this.#tokens / rate * 1000;
  }

  /** What was seen until then says nothing about now. */
  #noticeWriteThrough(now: number) {
    const isWriteThrough = this.#options.isWriteThrough();
    if (isWriteThrough === this.#wasWriteThrough) return;
    this.#wasWriteThrough = isWriteThrough;
    this.#look = undefined;
    if (!this.#undisturbed.has(isWriteThrough)) this.#lookAtMs = now;
    this.#beginPeriod(now);
  }

  /** Looks, when it is time, how the application fares alone. @returns how long it takes still. */
  #lookMs(now: number): number {
    if (this.#look === undefined) {
      if (now < this.#lookAtMs || this.#isForced) return 0;
      this.#look = new LoadMark(this.#options.counters, now);
      this.#lateMicros = [];
    }
    const leftMs = this.#look.atMs + LOOK_MS - now;
    if (leftMs > 0) return leftMs;
    this.#learn(this.#look.until(now));
    this.#look = undefined;
    this.#lookAtMs = now + LOOK_EVERY_MS;
    this.#beginPeriod(now);
    return 0;
  }

  #learn(seen: ApplicationLoad) {
    if (seen.requests < FEW_REQUESTS) return;
    const mode = this.#wasWriteThrough, before = this.#undisturbed.get(mode);
    const blend = (old: number, fresh: number) => old * 0.7 + fresh * 0.3;
    const late = this.#lateNow();
    if (late !== undefined) {
      this.#undisturbedLateMicros = blend(this.#undisturbedLateMicros ?? late, late);
    }
    const learned = before === undefined ? seen : {
      requests: seen.requests,
      iops: blend(before.iops, seen.iops),
      meanMicros: blend(before.meanMicros, seen.meanMicros),
      p99Micros: blend(before.p99Micros, seen.p99Micros),
    };
    this.#undisturbed.set(mode, learned);
  }

  #lateNow(): number | undefined {
    const samples = this.#lateMicros;
    if (samples.length < LATE_SAMPLES_MIN) return undefined;
    return samples.sort((a, b) => a - b)[Math.floor(samples.length * LATE_LEVEL)];
  }

  #lateness(): PaceInput["late"] {
    const now = this.#lateNow(), undisturbed = this.#undisturbedLateMicros;
    return now === undefined || undisturbed === undefined ? undefined : { now, undisturbed };
  }

  #adjust(now: number) {
    const elapsedMs = now - this.#period.atMs;
    const isEnough = this.#period.requests >= ENOUGH_REQUESTS;
    if (elapsedMs < PERIOD_MS || (!isEnough && elapsedMs < PERIOD_MS_MAX)) return;
    const undisturbed = this.#undisturbed.get(this.#wasWriteThrough);
    // Nobody looks then: without a measure there is no reason to go up.
    const isBlind = undisturbed === undefined && this.#isForced;
    this.#rate = isBlind ? this.#lowest : nextRate({
      rate: this.#rate,
      floor: this.#lowest,
      ceiling: this.#ceiling,
      now: this.#period.until(now),
      undisturbed,
      late: this.#lateness(),
    });
    this.#beginPeriod(now);
  }

  #beginPeriod(now: number) {
    this.#period = new LoadMark(this.#options.counters, now);
    this.#lateMicros = [];
  }
}
