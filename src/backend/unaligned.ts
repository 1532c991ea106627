/**
 * Operations that direct I/O cannot do as they are, because offset, length or memory is no multiple of what
 * the device asks for. Every backend serves every alignment: a volume may move to a device with larger
 * blocks than its application was told of, and must not fail it then.
 *
 * Such an operation runs alone, through a private buffer: what is in flight ends first, what comes later
 * waits, in order. A block that it shares with another write would else be written back as it was before
 * that write. That is slow, and correct; frontends announce 4096 bytes as the preferred size.
 * Off the hot path: aligned operations only ask `takes`, which is a few comparisons.
 */
import { assert } from "../core/mod.ts";
import {
  allocateMemory,
  copyMemory,
  type DirectAlignment,
  type Memory,
  unmapMemory,
} from "../sys/mod.ts";
import { OpQueue } from "./nbd/queue.ts";
import { OPERATION, OPERATION_FLAG, type Operations } from "./operations.ts";

const BOUNCE_BYTES = 64 * 1024;
const NONE = -1, EOPNOTSUPP = 95;

/** The backend as it looks from here. */
export interface AlignedEngine {
  /** Operations that it works on. */
  working(): number;
  /** Starts an operation that is aligned. */
  start(op: number): void;
  /** An unaligned operation is complete. */
  finish(op: number, errno: number): void;
}

/** An operation as its owner gave it. */
interface Asked {
  code: number;
  flags: number;
  at: number;
  length: number;
  address: number;
}

export class UnalignedOperations {
  readonly #offsetMask: number;
  readonly #memoryMask: number;
  readonly #bounce: Memory;
  readonly #waiting: OpQueue;
  readonly #asked: Asked = { code: 0, flags: 0, at: 0, length: 0, address: 0 };
  /** The operation that runs alone; its record then holds the step that it is at. */
  #running = NONE;
  #done = 0;
  /** Where the step began and how much of what was asked it covers. */
  #stepAt = 0;
  #stepBytes = 0;
  /** The step writes its blocks; before that it reads those that it changes in part. */
  #isWriting = false;

  constructor(
    readonly operations: Operations,
    readonly engine: AlignedEngine,
    readonly alignment: DirectAlignment,
  ) {
    const { memoryBytes, offsetBytes } = alignment;
    const powers = [memoryBytes, offsetBytes].every((one) => one > 0 && (one & (one - 1)) === 0);
    assert(powers && offsetBytes <= BOUNCE_BYTES, "alignment is no usable power of two");
    this.#offsetMask = offsetBytes - 1;
    this.#memoryMask = memoryBytes - 1;
    this.#bounce = allocateMemory(BOUNCE_BYTES);
    this.#waiting = new OpQueue(operations.capacity);
  }

  /** Operations that wait for their turn. */
  get waiting(): number {
    return this.#waiting.length;
  }

  /** Gives the buffer back. Only when nothing waits and the engine does nothing. */
  release(): void {
    assert(this.#running === NONE && this.waiting === 0, "a buffer is released that is in use");
    unmapMemory(this.#bounce);
  }

  /** @returns true when the operation is in hand here: it is unaligned, or must wait for one that is. */
  takes(op: number): boolean {
    if (this.#running === NONE && this.#waiting.length === 0 && this.#isAligned(op)) return false;
    this.#waiting.push(op);
    this.resume();
    return true;
  }

  /** The engine has nothing to do, or less than before: goes on with what waits. */
  resume(): void {
    while (this.#running === NONE && this.#waiting.length > 0) {
      const op = this.#waiting.first;
      if (this.#isAligned(op)) {
        this.engine.start(this.#waiting.shift());
      } else if (this.engine.working() === 0) {
        this.#begin(this.#waiting.shift());
      } else return;
    }
  }

  /** True when a completion of the engine belongs to a step of this operation. */
  runs(op: number): boolean {
    return op === this.#running;
  }

  #isAligned(op: number): boolean {
    const operations = this.operations, code = operations.code[op] as number;
    if (code === OPERATION.flush) return true;
    // The low 32 bits decide, also beyond 2^32: `&` keeps them.
    const place = (operations.at[op] as number) & this.#offsetMask |
      (operations.length[op] as number) & this.#offsetMask;
    if (place !== 0 || code > OPERATION.write) return place === 0;
    return ((operations.address[op] as number) & this.#memoryMask) === 0;
  }

  #begin(op: number) {
    const operations = this.operations, asked = this.#asked;
    asked.code = operations.code[op] as number;
    asked.flags = operations.flags[op] as number;
    asked.at = operations.at[op] as number;
    asked.length = operations.length[op] as number;
    asked.address = operations.address[op] as number;
    this.#running = op;
    this.#done = 0;
    // Parts of blocks have to be written: where only fast zeros are wanted nothing may have changed.
    if ((asked.flags & OPERATION_FLAG.fastZero) !== 0) this.#finish(op, EOPNOTSUPP);
    else this.#nextStep(op);
  }

  /** Whole blocks are zeroed as they are; everything else goes block by block through the buffer. */
  #nextStep(op: number) {
    const { code, at, length } = this.#asked;
    const from = at + this.#done, end = at + length;
    const inBlock = from & this.#offsetMask, block = this.#offsetMask + 1;
    const zeroes = code > OPERATION.write, wholeBytes = end - from - (end - from) % block;
    if (zeroes && inBlock === 0 && wholeBytes > 0) {
      this.#stepBytes = wholeBytes;
      this.#isWriting = true;
      return this.#step(op, code, from, wholeBytes);
    }
    const room = zeroes ? block : BOUNCE_BYTES;
    this.#stepAt = from - inBlock;
    this.#stepBytes = Math.min(end - from, room - inBlock);
    const whole = inBlock === 0 && (this.#stepBytes & this.#offsetMask) === 0;
    this.#isWriting = false;
    if (code === OPERATION.write && whole) this.#change(op);
    else this.#step(op, OPERATION.read, this.#stepAt, this.#blocksBytes());
  }

  /** Bytes of the blocks that the step touches. */
  #blocksBytes(): number {
    const block = this.#offsetMask + 1;
    const end = this.#asked.at + this.#done + this.#stepBytes;
    return Math.ceil((end - this.#stepAt) / block) * block;
  }

  /** The buffer holds the step's blocks: puts what was asked into them and writes them. */
  #change(op: number) {
    const { code, address } = this.#asked;
    const inBuffer = this.#asked.at + this.#done - this.#stepAt;
    if (code === OPERATION.write) {
      copyMemory(this.#bounce.address + inBuffer, address + this.#done, this.#stepBytes);
    } else this.#bounce.bytes.fill(0, inBuffer, inBuffer + this.#stepBytes);
    this.#isWriting = true;
    this.#step(op, OPERATION.write, this.#stepAt, this.#blocksBytes());
  }

  #step(op: number, code: number, at: number, length: number) {
    const operations = this.operations;
    operations.code[op] = code;
    operations.at[op] = at;
    operations.length[op] = length;
    operations.address[op] = this.#bounce.address;
    operations.progress[op] = 0;
    this.engine.start(op);
  }

  /** The engine has ended a step. */
  stepDone(op: number, errno: number): void {
    const { code, address, length } = this.#asked;
    if (errno !== 0) return this.#finish(op, errno);
    if (code === OPERATION.read) {
      const inBuffer = this.#asked.at + this.#done - this.#stepAt;
      copyMemory(address + this.#done, this.#bounce.address + inBuffer, this.#stepBytes);
    } else if (!this.#isWriting) return this.#change(op);
    this.#done += this.#stepBytes;
    if (this.#done < length) this.#nextStep(op);
    else this.#finish(op, 0);
  }

  #finish(op: number, errno: number) {
    const operations = this.operations, asked = this.#asked;
    operations.code[op] = asked.code;
    operations.flags[op] = asked.flags;
    operations.at[op] = asked.at;
    operations.length[op] = asked.length;
    operations.address[op] = asked.address;
    this.#running = NONE;
    this.engine.finish(op, errno);
  }
}
