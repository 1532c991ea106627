/**
 * How far a mirror is, how fast it gets on, and when nothing will be dirty: with an interval, or with the reason
 * why there is no such time.
 *
 * Of a round, `left` is what is dirty now and `total` what was dirty when it began and what became so since; the
 * share that is done is 1 - left/total. A total that grows never takes back what was shown, and 100 % means that
 * the round is over: checked and durable. Between rounds it is 100: the last one is over. The first sync is one
 * round however often the process is restarted: its total and what was shown of it are remembered.
 */
import type { Clock } from "../core/mod.ts";
import { formatSize } from "../core/mod.ts";
import type { FirstSync } from "../volume/mod.ts";
import { RateMeter } from "./rate_meter.ts";

/** Rises with the work; `dirtyBytes` is a level. */
export interface Work {
  readonly copiedBytes: number;
  readonly changedBytes: number;
  readonly dirtyBytes: number;
}

/** When nothing is dirty any more, in seconds from now. */
export interface Arrival {
  readonly etaSeconds: number | null;
  /** 80 % of arrivals lie between them. High null: no bound can be given. */
  readonly etaLowSeconds: number | null;
  readonly etaHighSeconds: number | null;
  /** Why there is no time; null when there is. */
  readonly etaReason: string | null;
}

export interface ProgressReport extends Arrival {
  readonly dirtyBytes: number;
  /** In [0, 100], one digit. */
  readonly percent: number;
  /** Of copying, while it goes on; else 0. */
  readonly rateBytesPerSecond: number;
  readonly dirtyBytesPerSecond: number;
}

const SLICE_MS_MIN = 100, COPY_SPAN_MS = 30_000, DIRTY_SPAN_MS = 60_000;
const UNDER_WAY_PERCENT_MAX = 99.9;
/** Of the normal distribution, for 80 %. */
const Z80 = 1.2816;
/** Copying at this share of its ceiling was held back by it and might do more. */
const HELD_BACK = 0.9;
const ARRIVED: Arrival = { etaSeconds: 0, etaLowSeconds: 0, etaHighSeconds: 0, etaReason: null };
const NO_RATE = "nothing was copied yet";

export class Progress {
  readonly #clock: Pick<Clock, "monotonicMs">;
  readonly #work: () => Work;
  readonly #copied = new RateMeter(COPY_SPAN_MS);
  readonly #net = new RateMeter(COPY_SPAN_MS);
  readonly #changed = new RateMeter(DIRTY_SPAN_MS);
  #copying = false;
  #marked: Work;
  #markedMs: number;
  #capacity: number | null = null;
  #ceiling: number | null = null;
  #round: { startBytes: number; changedBytes: number } | undefined;
  #percent: number;
  #first: FirstSync | null;

  /** @param first the first sync as far as it came; null: it is over. */
  constructor(
    { clock, work, first }: {
      clock: Pick<Clock, "monotonicMs">;
      work: () => Work;
      first: FirstSync | null;
    },
  ) {
    this.#clock = clock;
    this.#work = work;
    this.#marked = work();
    this.#markedMs = clock.monotonicMs();
    this.#first = first;
    this.#percent = first?.percent ?? 0;
  }

  /** What to remember over a restart; null when the first sync is over. */
  get first(): FirstSync | null {
    return this.#first;
  }

  /** What copying can do; bytes per second, null before anything was copied. */
  get capacity(): number | null {
    return this.#capacity;
  }

  get dirtyBytesPerSecond(): number {
    return Math.max(0, this.#changed.bytesPerSecond ?? 0);
  }

  /** The ceiling that copying is under from now on: what was measured under another says little. */
  setCeiling(ceiling: number | null): void {
    if (ceiling === this.#ceiling) return;
    this.look();
    this.#ceiling = ceiling;
    this.#copied.clear();
    this.#net.clear();
  }

  /** To be called every second or more often while something is copied. */
  look(): void {
    const now = this.#clock.monotonicMs(), ms = now - this.#markedMs;
    if (ms < SLICE_MS_MIN) return;
    const work = this.#work();
    const copied = work.copiedBytes - this.#marked.copiedBytes;
    const changed = work.changedBytes - this.#marked.changedBytes;
    this.#changed.add(ms, changed);
    if (this.#copying) {
      this.#copied.add(ms, copied);
      this.#net.add(ms, copied - changed);
      this.#learnCapacity();
    }
    this.#advance(work);
    this.#marked = work;
    this.#markedMs = now;
  }

  copyingBegins(): void {
    this.look();
    const work = this.#work();
    // What was left over is not copied in this round's time.
    this.#marked = work;
    this.#markedMs = this.#clock.monotonicMs();
    this.#copying = true;
    const startBytes = Math.max(work.dirtyBytes, this.#first?.total_bytes ?? 0);
    this.#round = { startBytes, changedBytes: work.changedBytes };
    if (this.#first === null) this.#percent = 0;
  }

  /** @param isOver the round is done; false: it was given up or interrupted. */
  copyingEnds(isOver: boolean): void {
    this.look();
    this.#copying = false;
    if (!isOver) return;
    this.#round = undefined;
    this.#percent = 100;
    this.#first = null;
  }

  /** @param stands why nothing is copied and nothing will be. @param waitMs until copying begins. */
  report(
    { stands, waitMs = 0 }: { stands?: string | undefined; waitMs?: number } = {},
  ): ProgressReport {
    this.look();
    const { dirtyBytes } = this.#work();
    const rate = this.#copying ? this.#copied.bytesPerSecond ?? 0 : 0;
    return {
      dirtyBytes,
      percent: Math.floor(this.#percent * 10) / 10,
      rateBytesPerSecond: Math.round(Math.max(0, rate)),
      dirtyBytesPerSecond: Math.round(this.dirtyBytesPerSecond),
      ...this.#arrival(dirtyBytes, stands, waitMs),
    };
  }

  #arrival(leftBytes: number, stands: string | undefined, waitMs: number): Arrival {
    if (leftBytes === 0) return ARRIVED;
    if (stands !== undefined) return none(stands);
    const copies = this.#copied.bytesPerSecond ?? this.#capacity;
    if (copies === null) return none(NO_RATE);
    if (this.#copying) {
      const net = this.#net.bytesPerSecond ?? copies - this.dirtyBytesPerSecond;
      if (net <= 0) return none(divergence(copies - net, copies));
      return arrivalOf(leftBytes, this.#net, net);
    }
    if (copies <= this.dirtyBytesPerSecond) {
      return none(divergence(this.dirtyBytesPerSecond, copies));
    }
    return later(arrivalOf(leftBytes, this.#copied, copies), waitMs / 1000);
  }

  #advance({ changedBytes, dirtyBytes }: Work) {
    if (this.#round === undefined) return;
    const total = this.#round.startBytes + changedBytes - this.#round.changedBytes;
    const done = total > 0 ? 100 * (1 - dirtyBytes / total) : 100;
    this.#percent = Math.max(this.#percent, Math.min(UNDER_WAY_PERCENT_MAX, done));
    if (this.#first !== null) this.#first = { total_bytes: total, percent: this.#percent };
  }

  #learnCapacity() {
    const rate = this.#copied.bytesPerSecond ?? 0;
    if (rate <= 0) return;
    const isHeldBack = this.#ceiling !== null && rate >= HELD_BACK * this.#ceiling;
    this.#capacity = isHeldBack ? Math.max(rate, this.#capacity ?? 0) : rate;
  }
}

/** From what is left and the rate at which it gets less. @param rate bytes per second, above 0. */
function arrivalOf(
  leftBytes: number,
  meter: Pick<RateMeter, "deviation">,
  rate: number,
): Arrival {
  const expected = leftBytes / rate;
  // Too little was seen to know how it varies: then it may be anything from half the time on.
  const off = Z80 * (meter.deviation(expected * 1000) ?? rate);
  return {
    etaSeconds: tenths(expected),
    etaLowSeconds: Math.min(tenths(leftBytes / (rate + off)), tenths(expected)),
    etaHighSeconds: rate > off
      ? Math.max(tenths(leftBytes / (rate - off)), tenths(expected))
      : null,
    etaReason: null,
  };
}

function later(arrival: Arrival, seconds: number): Arrival {
  const put = (eta: number | null) => eta === null ? null : tenths(eta + seconds);
  return {
    etaSeconds: put(arrival.etaSeconds),
    etaLowSeconds: put(arrival.etaLowSeconds),
    etaHighSeconds: put(arrival.etaHighSeconds),
    etaReason: arrival.etaReason,
  };
}

function none(etaReason: string): Arrival {
  return { etaSeconds: null, etaLowSeconds: null, etaHighSeconds: null, etaReason };
}

function divergence(dirties: number, copies: number): string {
  return `it does not converge at present rates: dirties ${formatSize(Math.round(dirties))}/s, ` +
    `copies ${formatSize(Math.round(copies))}/s`;
}

function tenths(seconds: number): number {
  return Math.round(seconds * 10) / 10;
}
