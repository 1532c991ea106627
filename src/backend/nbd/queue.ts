/** Orders of operations over fixed memory: nothing here allocates after set-up. */
import { assert } from "../../core/mod.ts";

const NONE = -1;

/** Operations in order of submission; any of them may leave. Each is in it at most once. */
export class OpList {
  readonly #next: Int32Array;
  readonly #previous: Int32Array;
  #first = NONE;
  #last = NONE;
  #length = 0;

  constructor(capacity: number) {
    this.#next = new Int32Array(capacity);
    this.#previous = new Int32Array(capacity);
  }

  get length(): number {
    return this.#length;
  }

  /** @returns -1 when empty. */
  get first(): number {
    return this.#first;
  }

  /** @returns -1 after the last. */
  after(op: number): number {
    return this.#next[op] as number;
  }

  append(op: number): void {
    this.#next[op] = NONE;
    this.#previous[op] = this.#last;
    if (this.#last === NONE) this.#first = op;
    else this.#next[this.#last] = op;
    this.#last = op;
    this.#length++;
  }

  remove(op: number): void {
    const next = this.#next[op] as number, previous = this.#previous[op] as number;
    if (previous === NONE) this.#first = next;
    else this.#next[previous] = next;
    if (next === NONE) this.#last = previous;
    else this.#previous[next] = previous;
    this.#length--;
  }
}

/** First in, first out. */
export class OpQueue {
  readonly #items: Int32Array;
  #head = 0;
  #length = 0;

  constructor(capacity: number) {
    this.#items = new Int32Array(capacity);
  }

  get length(): number {
    return this.#length;
  }

  /** The one that `shift` would take. */
  get first(): number {
    assert(this.#length > 0, "queue is empty");
    return this.#items[this.#head] as number;
  }

  push(op: number): void {
    assert(this.#length < this.#items.length, "an operation is queued twice");
    this.#items[(this.#head + this.#length++) % this.#items.length] = op;
  }

  shift(): number {
    assert(this.#length > 0, "queue is empty");
    const op = this.#items[this.#head] as number;
    this.#head = (this.#head + 1) % this.#items.length;
    this.#length--;
    return op;
  }

  clear(): void {
    this.#head = this.#length = 0;
  }
}
