/**
 * Operations on backends: preallocated records, struct of arrays, one table per data-plane thread.
 * Hot path: nothing here allocates, awaits or throws.
 *
 * Life of one: `take` → fill in `code at length address flags` and the owner → `Backend.submit(op)` →
 * the backend calls `complete(op, errno)`, which frees the record and tells the owner's handler.
 * A backend that counts what it does names its meter in `begin`, first thing in `submit`.
 * Between submit and complete the memory at `address` belongs to the backend.
 */
import { assert, BrokenInvariant, type Clock, systemClock } from "../core/mod.ts";

/** What an operation does. Trim and write-zeroes both read as zeros afterwards. */
export const OPERATION = { read: 0, write: 1, flush: 2, trim: 3, writeZeroes: 4 } as const;

/**
 * Flags: `fua` durable before completion; `noHole` write-zeroes must keep the blocks allocated; `fastZero`
 * write-zeroes must fail with EOPNOTSUPP, having changed nothing, where it would have to write the zeros.
 */
export const OPERATION_FLAG = { fua: 1, noHole: 2, fastZero: 4 } as const;

/** @param owner the owner's own index. @param errno 0, or a positive errno. */
export type OperationHandler = (owner: number, errno: number) => void;

/** Counts what a backend does. Hot path. */
export interface OperationMeter {
  /** @param micros from `begin` to `complete`. */
  record(code: number, length: number, micros: number, errno: number): void;
}

const OWNERS_MAX = 65_536;

/** The handler of ids that nobody has. */
const nobody: OperationHandler = () => {
  throw new BrokenInvariant("an operation's owner has left");
};

export class Operations {
  readonly code: Uint8Array;
  readonly flags: Uint8Array;
  /** Bytes from the start of the backend; bytes long; where in memory. */
  readonly at: Float64Array;
  readonly length: Float64Array;
  readonly address: Float64Array;
  /** Bytes done so far: backends keep it across short reads and writes. */
  readonly progress: Float64Array;
  /** Free for the backend that works on the operation. */
  readonly scratch: Int32Array;
  readonly #owner: Int32Array;
  readonly #handler: Uint16Array;
  readonly #handlers: OperationHandler[] = [];
  readonly #freeOwners: number[] = [];
  /** Owners that left while operations of theirs were in flight. */
  #leaving: number[] = [];
  readonly #free: Int32Array;
  #freeCount: number;
  /** Per operation: the meter that counts it and when it began, in milliseconds. */
  readonly #meter: (OperationMeter | undefined)[];
  readonly #begunMs: Float64Array;

  /** @param clock for latencies: read when an operation begins and when it completes. */
  constructor(
    readonly capacity: number,
    readonly clock: Pick<Clock, "monotonicMs"> = systemClock,
  ) {
    this.code = new Uint8Array(capacity);
    this.flags = new Uint8Array(capacity);
    this.at = new Float64Array(capacity);
    this.length = new Float64Array(capacity);
    this.address = new Float64Array(capacity);
    this.progress = new Float64Array(capacity);
    this.scratch = new Int32Array(capacity);
    this.#owner = new Int32Array(capacity);
    this.#handler = new Uint16Array(capacity);
    this.#free = new Int32Array(capacity);
    for (let i = 0; i < capacity; i++) this.#free[i] = capacity - 1 - i;
    this.#freeCount = capacity;
    this.#meter = new Array<OperationMeter | undefined>(capacity).fill(undefined);
    this.#begunMs = new Float64Array(capacity);
  }

  get inUse(): number {
    return this.capacity - this.#freeCount;
  }

  /** @returns an id for `take`. Called once per owner, at set-up. */
  registerOwner(handler: OperationHandler): number {
    this.#letGo();
    const owner = this.#freeOwners.pop() ?? this.#handlers.length;
    assert(owner < OWNERS_MAX, "too many owners of operations");
    this.#handlers[owner] = handler;
    return owner;
  }

  /** The owner takes no more operations. Its handler still hears of those in flight; then its id is used again. */
  unregisterOwner(owner: number): void {
    this.#leaving.push(owner);
    this.#letGo();
  }

  /** Frees the ids of those who have left and have nothing in flight. */
  #letGo() {
    if (this.#leaving.length === 0) return;
    const busy = new Set<number>();
    const free = new Set(this.#free.subarray(0, this.#freeCount));
    for (let op = 0; op < this.capacity; op++) {
      if (!free.has(op)) busy.add(this.#handler[op] as number);
    }
    this.#leaving = this.#leaving.filter((owner) => {
      if (busy.has(owner)) return true;
      this.#handlers[owner] = nobody;
      this.#freeOwners.push(owner);
      return false;
    });
  }

  /**
   * Takes a free record. The table is sized so that admitted work always fits (two per request slot plus
   * those of `BackendCalls`), so running out is a broken invariant.
   */
  take(
    handler: number,
    owner: number,
    code: number,
    at: number,
    length: number,
    address: number,
    flags: number,
  ): number {
    assert(this.#freeCount > 0, "no free operation");
    const op = this.#free[--this.#freeCount] as number;
    this.#handler[op] = handler;
    this.#owner[op] = owner;
    this.code[op] = code;
    this.at[op] = at;
    this.length[op] = length;
    this.address[op] = address;
    this.flags[op] = flags;
    this.progress[op] = 0;
    return op;
  }

  /** A backend starts to work on an operation, and wants it counted. */
  begin(op: number, meter: OperationMeter): void {
    this.#meter[op] = meter;
    this.#begunMs[op] = this.clock.monotonicMs();
  }

  /** The backend is done: frees the record, then tells the owner. */
  complete(op: number, errno: number): void {
    const meter = this.#meter[op];
    if (meter !== undefined) {
      this.#meter[op] = undefined;
      const micros = (this.clock.monotonicMs() - (this.#begunMs[op] as number)) * 1000;
      meter.record(this.code[op] as number, this.length[op] as number, micros, errno);
    }
    const handler = this.#handler[op] as number, owner = this.#owner[op] as number;
    this.#free[this.#freeCount++] = op;
    (this.#handlers[handler] as OperationHandler)(owner, errno);
  }
}
