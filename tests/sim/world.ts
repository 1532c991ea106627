/**
 * Virtual time and chance of one simulation: events in order of time, one seed for everything, and a hash of
 * all that was noted, so that two runs of a seed can be compared.
 */
import { type Clock, type Rng, seededRng } from "../../src/core/mod.ts";

/** Something that will happen; it may be called off. */
export interface Scheduled {
  cancelled: boolean;
}

interface Event extends Scheduled {
  readonly atMs: number;
  readonly seq: number;
  readonly run: () => void;
}

/** Where the wall clock starts: any day does. */
const WALL_START_MS = Date.UTC(2030, 0, 1);

export class World {
  readonly rng: Rng;
  readonly clock: Clock;
  /** Lines of what happened; empty unless asked for. */
  readonly lines: string[] = [];
  /** The first promise that was found broken: everything ends then. */
  failure: unknown;
  #nowMs = 0;
  #wallStepMs = 0;
  #seq = 0;
  #hash = 0;
  readonly #heap: Event[] = [];

  constructor(readonly seed: number, readonly tells: boolean = false) {
    this.rng = seededRng(seed);
    this.clock = {
      nowMs: () => WALL_START_MS + this.#wallStepMs + this.#nowMs,
      monotonicMs: () => this.#nowMs,
      sleep: () => Promise.reject(new Error("nothing sleeps by the clock on a data-plane thread")),
    };
  }

  fail(failure: unknown): void {
    this.failure ??= failure;
  }

  /** Does a check whose failure must not be taken for an error of the code that called. */
  attempt(check: () => void): void {
    try {
      check();
    } catch (failure) {
      this.fail(failure);
    }
  }

  get nowMs(): number {
    return this.#nowMs;
  }

  get hash(): number {
    return this.#hash;
  }

  /** True with the given probability. */
  chance(probability: number): boolean {
    return probability > 0 && this.rng.float() < probability;
  }

  /** A number in [from, to). */
  between(from: number, to: number): number {
    return from + this.rng.float() * (to - from);
  }

  pick<T>(choices: readonly T[]): T {
    return choices[this.rng.below(choices.length)] as T;
  }

  /** The wall clock jumps; monotonic time does not. */
  stepWallClock(ms: number): void {
    this.#wallStepMs += ms;
  }

  after(ms: number, run: () => void): Scheduled {
    const event: Event = { atMs: this.#nowMs + ms, seq: this.#seq++, run, cancelled: false };
    const heap = this.#heap;
    let at = heap.push(event) - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!isBefore(event, heap[parent] as Event)) break;
      heap[at] = heap[parent] as Event;
      at = parent;
    }
    heap[at] = event;
    return event;
  }

  /** The next event happens, if it is due by then; else time passes until then. @returns whether one did. */
  step(untilMs: number): boolean {
    for (;;) {
      const next = this.#heap[0];
      if (next === undefined && untilMs === Infinity) throw new Error("nothing is left to happen");
      if (next === undefined || next.atMs > untilMs) {
        this.#nowMs = Math.max(this.#nowMs, untilMs);
        return false;
      }
      this.#takeFirst();
      if (next.cancelled) continue;
      this.#nowMs = Math.max(this.#nowMs, next.atMs);
      next.run();
      return true;
    }
  }

  /** A call took so long; what becomes due meanwhile happens when somebody waits. */
  pass(ms: number): void {
    this.#nowMs += ms;
  }

  #takeFirst() {
    const heap = this.#heap, last = heap.pop() as Event, count = heap.length;
    if (count === 0) return;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= count) break;
      if (child + 1 < count && isBefore(heap[child + 1] as Event, heap[child] as Event)) child++;
      if (!isBefore(heap[child] as Event, last)) break;
      heap[at] = heap[child] as Event;
      at = child;
    }
    heap[at] = last;
  }

  /** What happened, for the hash and, when asked for, as a line. */
  note(what: string, one = 0, two = 0): void {
    let hash = this.#hash ^ Math.floor(this.#nowMs * 1000);
    for (let i = 0; i < what.length; i++) hash = Math.imul(hash ^ what.charCodeAt(i), 16777619);
    hash = Math.imul(hash ^ one, 16777619);
    this.#hash = Math.imul(hash ^ two, 16777619) >>> 0;
    if (this.tells) this.lines.push(`${this.#nowMs.toFixed(3).padStart(12)} ${what} ${one} ${two}`);
  }
}

function isBefore(one: Event, other: Event): boolean {
  return one.atMs < other.atMs || (one.atMs === other.atMs && one.seq < other.seq);
}
