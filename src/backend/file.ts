/**
 * Bytes in a sparse file (or, with the same calls, on a block device): READ, WRITE, FSYNC and FALLOCATE on the ring.
 *
 * Faults: short reads and writes go on where they stopped; EINTR and EAGAIN are tried again; a read that ends
 * before the volume does is EIO, because the file is as long as the volume by construction. File systems that
 * cannot punch or zero a range get zeros written instead.
 * Hot path: submit and the completion handler neither allocate, await nor throw.
 */
import { errnoText, PsmaError } from "../core/mod.ts";
import { FSYNC_DATASYNC, RWF_DSYNC } from "../codec/mod.ts";
import {
  allocatedBytes,
  allocateMemory,
  closeFile,
  fileSize,
  type Memory,
  nextDataRun,
  openFile,
  type Reactor,
  truncateFile,
} from "../sys/mod.ts";
import type { Backend, Extent, LossPolicy } from "./backend.ts";
import { OPERATION, OPERATION_FLAG, type Operations } from "./operations.ts";

const EINTR = 4, EIO = 5, EAGAIN = 11, EOPNOTSUPP = 95, EINVAL = 22;
const PUNCH_HOLE_KEEP_SIZE = 0x03, ZERO_RANGE_KEEP_SIZE = 0x11;
const ZERO_BYTES = 1 << 20;
const RUNS_PER_TURN = 64;

/** Phases of one operation, in `operations.scratch`. */
const PHASE = { first: 0, writingZeros: 1, syncing: 2 } as const;

export interface FileBackendOptions {
  readonly path: string;
  readonly reactor: Reactor;
  readonly operations: Operations;
  /** Bypasses the page cache; offsets and lengths must then be multiples of 512 bytes. */
  readonly direct?: boolean;
}

export class FileBackend implements Backend {
  readonly description: string;
  readonly connected = true;
  onLost: (() => void) | undefined = undefined;
  readonly #fd: number;
  readonly #kind: number;
  readonly #reactor: Reactor;
  readonly #operations: Operations;
  readonly #zeros: Memory;
  #sizeBytes: number;
  #inFlight = 0;
  #closed = false;
  #canPunch = true;
  #canZero = true;

  /** Opens an existing file. @throws {PsmaError} sys/... when it cannot be opened. */
  constructor(options: FileBackendOptions) {
    this.description = `file ${options.path}`;
    this.#fd = openFile(options.path, { direct: options.direct ?? false });
    this.#sizeBytes = fileSize(this.#fd);
    this.#reactor = options.reactor;
    this.#operations = options.operations;
    this.#kind = options.reactor.ring.register((op, result) => this.#completed(op, result));
    this.#zeros = zeros();
  }

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  submit(op: number): void {
    this.#inFlight++;
    this.#start(op);
  }

  #start(op: number) {
    const operations = this.#operations, ring = this.#reactor.ring;
    operations.scratch[op] = PHASE.first;
    const at = operations.at[op] as number, length = operations.length[op] as number;
    switch (operations.code[op]) {
      case OPERATION.read:
      case OPERATION.write:
        this.#transfer(op);
        return;
      case OPERATION.flush:
        ring.fsync(this.#fd, FSYNC_DATASYNC, this.#kind, op);
        return;
      case OPERATION.trim:
        if (!this.#canPunch) return this.#writeZeros(op);
        ring.fallocate(this.#fd, PUNCH_HOLE_KEEP_SIZE, at, length, this.#kind, op);
        return;
      case OPERATION.writeZeroes: {
        const keep = ((operations.flags[op] as number) & OPERATION_FLAG.noHole) !== 0;
        if (!(keep ? this.#canZero : this.#canPunch)) return this.#writeZeros(op);
        const mode = keep ? ZERO_RANGE_KEEP_SIZE : PUNCH_HOLE_KEEP_SIZE;
        ring.fallocate(this.#fd, mode, at, length, this.#kind, op);
        return;
      }
    }
  }

  #transfer(op: number) {
    const operations = this.#operations, done = operations.progress[op] as number;
    const at = (operations.at[op] as number) + done;
    const address = (operations.address[op] as number) + done;
    const length = (operations.length[op] as number) - done;
    if (operations.code[op] === OPERATION.read) {
      this.#reactor.ring.read(this.#fd, at, address, length, this.#kind, op);
    } else {
      const durable = ((operations.flags[op] as number) & OPERATION_FLAG.fua) !== 0;
      this.#reactor.ring.write(
        this.#fd,
        at,
        address,
        length,
        durable ? RWF_DSYNC : 0,
        this.#kind,
        op,
      );
    }
  }

  #writeZeros(op: number) {
    const operations = this.#operations, done = operations.progress[op] as number;
    operations.scratch[op] = PHASE.writingZeros;
    const length = Math.min((operations.length[op] as number) - done, ZERO_BYTES);
    const at = (operations.at[op] as number) + done;
    this.#reactor.ring.write(this.#fd, at, this.#zeros.address, length, 0, this.#kind, op);
  }

  #completed(op: number, result: number) {
    const operations = this.#operations, code = operations.code[op];
    const phase = operations.scratch[op];
    const transfers = phase === PHASE.writingZeros ||
      (phase === PHASE.first && (code === OPERATION.read || code === OPERATION.write));
    if (result < 0) return this.#failed(op, -result, transfers);
    if (transfers) {
      const done = (operations.progress[op] as number) + result;
      operations.progress[op] = done;
      if (result === 0 && done < (operations.length[op] as number)) {
        this.#done(op, EIO);
      } else if (done < (operations.length[op] as number)) {
        if (phase === PHASE.writingZeros) this.#writeZeros(op);
        else this.#transfer(op);
      } else if (phase === PHASE.writingZeros) this.#sync(op);
      else this.#done(op, 0);
    } else if (phase === PHASE.first && code !== OPERATION.flush) this.#sync(op);
    else this.#done(op, 0);
  }

  /** After a punch or zeroing: FUA asks for durability, which those calls have no flag for. */
  #sync(op: number) {
    const operations = this.#operations;
    if (((operations.flags[op] as number) & OPERATION_FLAG.fua) === 0) {
      return this.#done(op, 0);
    }
    operations.scratch[op] = PHASE.syncing;
    this.#reactor.ring.fsync(this.#fd, FSYNC_DATASYNC, this.#kind, op);
  }

  #failed(op: number, errno: number, transfers: boolean) {
    const operations = this.#operations, phase = operations.scratch[op];
    const code = operations.code[op];
    if (errno === EINTR || errno === EAGAIN) {
      if (phase === PHASE.writingZeros) this.#writeZeros(op);
      else if (phase === PHASE.syncing) this.#sync(op);
      else if (transfers) this.#transfer(op);
      else this.#start(op);
      return;
    }
    const zeroing = code === OPERATION.trim || code === OPERATION.writeZeroes;
    if (zeroing && phase === PHASE.first && (errno === EOPNOTSUPP || errno === EINVAL)) {
      const keep = ((operations.flags[op] as number) & OPERATION_FLAG.noHole) !== 0 &&
        code === OPERATION.writeZeroes;
      if (keep) this.#canZero = false;
      else this.#canPunch = false;
      return this.#writeZeros(op);
    }
    this.#done(op, errno);
  }

  #done(op: number, errno: number) {
    this.#inFlight--;
    this.#operations.complete(op, errno);
  }

  async dataExtents(from: number, length: number): Promise<readonly Extent[]> {
    const extents: Extent[] = [];
    const end = from + length;
    for (let at = from, runs = 0; at < end; runs++) {
      const run = nextDataRun(this.#fd, at);
      if (!run || run.at >= end) break;
      extents.push({ at: run.at, length: Math.min(run.end, end) - run.at });
      at = run.end;
      if (runs % RUNS_PER_TURN === RUNS_PER_TURN - 1) await this.#reactor.sleep(0);
    }
    return extents;
  }

  allocatedBytes(): number {
    return allocatedBytes(this.#fd);
  }

  async grow(sizeBytes: number): Promise<void> {
    if (sizeBytes <= this.#sizeBytes) return;
    truncateFile(this.#fd, sizeBytes);
    const result = await this.#reactor.fsync(this.#fd);
    if (result < 0) {
      throw new PsmaError("io/grow", `Cannot grow ${this.description}: ${errnoText(result)}`);
    }
    this.#sizeBytes = sizeBytes;
  }

  setLossPolicy(_policy: LossPolicy): void {}

  abort(): void {}

  /** Waits for what is in flight: a descriptor's number must not be re-used under the ring. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    while (this.#inFlight > 0) await this.#reactor.sleep(1);
    this.#reactor.ring.unregister(this.#kind);
    closeFile(this.#fd);
  }
}

let zeroMemory: Memory | undefined;

/** One megabyte of zeros that nobody writes to. */
function zeros(): Memory {
  return zeroMemory ??= allocateMemory(ZERO_BYTES);
}
