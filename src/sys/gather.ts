/**
 * Batched sending on one stream socket: pieces of memory are queued while completions are handled and
 * leave together in one SENDMSG. Hot path: no allocation, await or throw per piece.
 *
 * Faults: a short send goes on where it stopped; EINTR and EAGAIN are tried again; anything else ends
 * the stream, and the owner is told once. Memory of a piece belongs to the kernel until its turn in
 * `onSent`, or until `idle` after the end.
 */
import { assert } from "../core/mod.ts";
import { allocateMemory, type Memory, unmapMemory } from "./memory.ts";
import type { Ring } from "./ring.ts";

const IOVEC_BYTES = 16, MSGHDR_BYTES = 64, MSGHDR_IOV = 16;
/** What fits one page behind the header; the kernel's limit is 1024. */
const PIECES_PER_SEND = 252;
/** Bounds how long the first piece of a batch waits for the last one. */
const BYTES_PER_SEND = 2 * 1024 * 1024;
const TWO_32 = 4294967296;
const EINTR = -4, EAGAIN = -11, EPIPE = 32;

export interface GatherEvents {
  /** A piece has left. `tag` is what it was queued with. */
  onSent(tag: number): void;
  /** The stream is broken: `errno` positive. Pieces that did not leave stay until `drop`. */
  onBroken(errno: number): void;
}

export class GatherSender {
  fd = -1;
  readonly #memory: Memory = allocateMemory(4096);
  readonly #words: Uint32Array;
  readonly #address: Float64Array;
  readonly #length: Float64Array;
  readonly #tag: Int32Array;
  #head = 0;
  #count = 0;
  /** Pieces of the SENDMSG in flight; 0 when none is. */
  #inFlight = 0;

  /**
   * @param kind, index what the SENDMSG carries; the owner passes its completion to `onCompletion`.
   * @param capacity pieces that may wait at once.
   */
  constructor(
    readonly ring: Ring,
    readonly kind: number,
    readonly index: number,
    readonly capacity: number,
    readonly events: GatherEvents,
  ) {
    this.#words = new Uint32Array(this.#memory.bytes.buffer, 0, 1024);
    this.#address = new Float64Array(capacity);
    this.#length = new Float64Array(capacity);
    this.#tag = new Int32Array(capacity);
  }

  /** True when the kernel uses none of the pieces. */
  get idle(): boolean {
    return this.#inFlight === 0;
  }

  get waiting(): number {
    return this.#count;
  }

  queue(address: number, length: number, tag: number): void {
    assert(this.#count < this.capacity, "too many pieces to send");
    const i = (this.#head + this.#count++) % this.capacity;
    this.#address[i] = address;
    this.#length[i] = length;
    this.#tag[i] = tag;
  }

  /** Sends what waits, unless a send is in flight: its completion goes on with the rest. */
  flush(): void {
    if (this.#inFlight > 0 || this.#count === 0) return;
    const words = this.#words;
    let pieces = 0, bytes = 0;
    while (pieces < this.#count && pieces < PIECES_PER_SEND && bytes < BYTES_PER_SEND) {
      const i = (this.#head + pieces) % this.capacity;
      const address = this.#address[i] as number, length = this.#length[i] as number;
      const word = (MSGHDR_BYTES + pieces * IOVEC_BYTES) / 4;
      words[word] = address;
      words[word + 1] = address / TWO_32;
      words[word + 2] = length;
      words[word + 3] = length / TWO_32;
      bytes += length;
      pieces++;
    }
    const iov = this.#memory.address + MSGHDR_BYTES;
    words[MSGHDR_IOV / 4] = iov;
    words[MSGHDR_IOV / 4 + 1] = iov / TWO_32;
    words[MSGHDR_IOV / 4 + 2] = pieces;
    words[MSGHDR_IOV / 4 + 3] = 0;
    this.#inFlight = pieces;
    this.ring.sendmsg(this.fd, this.#memory.address, this.kind, this.index);
  }

  /** The SENDMSG is done: tells what has left, or that the stream broke. What waits leaves at the next `flush`. */
  onCompletion(result: number): void {
    this.#inFlight = 0;
    if (result === EINTR || result === EAGAIN) return;
    if (result <= 0) return this.events.onBroken(result === 0 ? EPIPE : -result);
    let left = result;
    while (this.#count > 0) {
      const i = this.#head, length = this.#length[i] as number;
      if (length > left) {
        this.#address[i] = (this.#address[i] as number) + left;
        this.#length[i] = length - left;
        break;
      }
      left -= length;
      this.#head = (this.#head + 1) % this.capacity;
      this.#count--;
      this.events.onSent(this.#tag[i] as number);
    }
  }

  /** Gives the memory back; nothing is sent any more. Only when idle. */
  release(): void {
    assert(this.idle, "a sender is released that the kernel uses");
    unmapMemory(this.#memory);
  }

  /** Forgets what has not left, telling `dropped` each tag. Only when idle. */
  drop(dropped: (tag: number) => void): void {
    assert(this.idle, "dropped pieces that the kernel uses");
    while (this.#count > 0) {
      const tag = this.#tag[this.#head] as number;
      this.#head = (this.#head + 1) % this.capacity;
      this.#count--;
      dropped(tag);
    }
  }
}
