/**
 * The slots of a volume's writes and flushes that are in flight, dense, and who waits for an extent to be
 * free of them. Hot path: adding and removing a slot allocates nothing.
 */
import type { Turns } from "../core/mod.ts";
import type { Range } from "./range.ts";
import type { Requests } from "./requests.ts";

interface Waiter {
  readonly range: Range;
  readonly resolve: (value: void) => void;
}

export class WritesInFlight {
  readonly #slots: Int32Array;
  /** Where each slot stands in `#slots`; -1: nowhere. */
  readonly #position: Int32Array;
  #count = 0;
  #waiters: Waiter[] = [];

  constructor(readonly requests: Requests, readonly turns: Turns) {
    this.#slots = new Int32Array(requests.count);
    this.#position = new Int32Array(requests.count).fill(-1);
  }

  get count(): number {
    return this.#count;
  }

  /** @param index below `count`; the order changes with every `remove`. */
  slotAt(index: number): number {
    return this.#slots[index] as number;
  }

  /** Hot path. */
  add(slot: number): void {
    this.#position[slot] = this.#count;
    this.#slots[this.#count++] = slot;
  }

  /** Hot path. A slot that is not there, a read's, is no error. */
  remove(slot: number): void {
    const position = this.#position[slot] as number;
    if (position < 0) return;
    const last = this.#slots[--this.#count] as number;
    this.#slots[position] = last;
    this.#position[last] = position;
    this.#position[slot] = -1;
  }

  /** Hot path. True when a write in flight touches [from, from + size). */
  touch(from: number, size: number): boolean {
    const { at: ats, length: lengths } = this.requests;
    for (let i = 0; i < this.#count; i++) {
      const slot = this.#slots[i] as number;
      const at = ats[slot] as number, length = lengths[slot] as number;
      if (at < from + size && from < at + length) return true;
    }
    return false;
  }

  /** Resolves when none touches the range; whoever calls keeps new ones from beginning there. */
  async leave(range: Range): Promise<void> {
    while (this.touch(range.at, range.length)) {
      const { promise, resolve } = this.turns.deferred<void>();
      this.#waiters.push({ range, resolve });
      await promise;
    }
  }

  /** Hot path while nobody waits. Call it when a write has ended. */
  tellWaiters(): void {
    if (this.#waiters.length === 0) return;
    const waiters = this.#waiters;
    this.#waiters = waiters.filter(({ range }) => this.touch(range.at, range.length));
    for (const waiter of waiters) if (!this.#waiters.includes(waiter)) waiter.resolve();
  }
}
