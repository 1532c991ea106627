/**
 * Requests from frontends: one table and one slot arena per data-plane thread, shared by all frontends.
 * A request is a slot: a record here and a buffer there. Hot path: no allocation, await or throw.
 *
 * Buffer of slot i: HEADROOM bytes, then MAX_IO bytes, page-aligned. Headers of NBD and FUSE messages go
 * right in front of the data, so that header and payload travel in one system call.
 *
 * A slot goes back to the free list when both are true: the frontend has released it (its reply left),
 * and no backend uses its buffer any more (`pins` is 0). The two differ when the application is answered
 * while a mirror's write is still on its way.
 */
import { assert, type Memory } from "../core/mod.ts";

export const HEADROOM = 4096;

/** What a frontend does when a request is complete. */
export type RequestHandler = (slot: number) => void;

export class Requests {
  /** OPERATION code and flags as in backend/. */
  readonly code: Uint8Array;
  readonly flags: Uint8Array;
  readonly at: Float64Array;
  readonly length: Float64Array;
  /** Who asked: the frontend's own session index and the protocol's cookie, verbatim. */
  readonly session: Int32Array;
  readonly cookieLow: Uint32Array;
  readonly cookieHigh: Uint32Array;
  /** Positive errno of the request so far; 0 is success. */
  readonly errno: Int32Array;
  /** Milliseconds, monotonic, when the request was admitted. */
  readonly startedMs: Float64Array;
  /** Free for the volume: operations outstanding before the application can be answered. */
  readonly waitingFor: Uint8Array;
  readonly pins: Uint8Array;
  readonly #released: Uint8Array;
  readonly #free: Int32Array;
  #freeCount: number;
  readonly #owner: Uint8Array;
  readonly #owners: RequestHandler[] = [];
  /** Called when a slot became free after there was none: frontends resume stalled sessions. */
  readonly onFree: (() => void)[] = [];

  /** @param arena at least `count * slotBytes(maxIo)` bytes, page-aligned. @param maxIo bytes of one request. */
  constructor(readonly arena: Memory, readonly count: number, readonly maxIo: number) {
    assert(arena.bytes.length >= count * slotBytes(maxIo), "arena is too small");
    this.code = new Uint8Array(count);
    this.flags = new Uint8Array(count);
    this.at = new Float64Array(count);
    this.length = new Float64Array(count);
    this.session = new Int32Array(count);
    this.cookieLow = new Uint32Array(count);
    this.cookieHigh = new Uint32Array(count);
    this.errno = new Int32Array(count);
    this.startedMs = new Float64Array(count);
    this.waitingFor = new Uint8Array(count);
    this.pins = new Uint8Array(count);
    this.#released = new Uint8Array(count);
    this.#owner = new Uint8Array(count);
    this.#free = new Int32Array(count);
    for (let i = 0; i < count; i++) this.#free[i] = count - 1 - i;
    this.#freeCount = count;
  }

  get freeCount(): number {
    return this.#freeCount;
  }

  /** @param handler called with each slot of this owner when its request is complete. @returns an id for `take`. */
  registerOwner(handler: RequestHandler): number {
    return this.#owners.push(handler) - 1;
  }

  /** @returns a slot, or -1 when all are in use: the caller stalls its session until `onFree`. */
  take(owner: number): number {
    if (this.#freeCount === 0) return -1;
    const slot = this.#free[--this.#freeCount] as number;
    this.#owner[slot] = owner;
    this.errno[slot] = 0;
    this.pins[slot] = 0;
    this.#released[slot] = 0;
    return slot;
  }

  /** Says what is asked for. Positional for the hot path. */
  describe(slot: number, code: number, at: number, length: number, flags: number): void {
    this.code[slot] = code;
    this.flags[slot] = flags;
    this.at[slot] = at;
    this.length[slot] = length;
  }

  /** The volume is done: the frontend replies with `errno[slot]` and then releases the slot. */
  complete(slot: number): void {
    (this.#owners[this.#owner[slot] as number] as RequestHandler)(slot);
  }

  /** The frontend is done with the slot: its reply has left, or its session is gone. */
  release(slot: number): void {
    assert(this.#released[slot] === 0, "slot released twice");
    this.#released[slot] = 1;
    if (this.pins[slot] === 0) this.#put(slot);
  }

  pin(slot: number): void {
    this.pins[slot] = (this.pins[slot] as number) + 1;
  }

  unpin(slot: number): void {
    const pins = (this.pins[slot] as number) - 1;
    this.pins[slot] = pins;
    if (pins === 0 && this.#released[slot] === 1) this.#put(slot);
  }

  /** Address of the slot's data; its headroom lies right before it. */
  dataAddress(slot: number): number {
    return this.arena.address + this.dataOffset(slot);
  }

  /** The same as an index into `arena.bytes`. */
  dataOffset(slot: number): number {
    return slot * slotBytes(this.maxIo) + HEADROOM;
  }

  #put(slot: number) {
    this.#free[this.#freeCount++] = slot;
    if (this.#freeCount === 1) { for (const resume of this.onFree) resume(); }
  }
}

/** Bytes of arena per slot. */
export function slotBytes(maxIo: number): number {
  return HEADROOM + maxIo;
}
