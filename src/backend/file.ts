/**
 * Bytes in a sparse file: READ, WRITE, FSYNC and FALLOCATE on the ring, but for a file in memory, whose bytes
 * are copied at once: profiled, the ring's detour over a worker thread cost two thirds of a 4 KiB read.
 * `device.ts` does the same calls on a block device.
 *
 * Faults: short reads and writes go on where they stopped; EINTR and EAGAIN are tried again; a read that ends
 * before the volume does is EIO, because the file is as long as the volume by construction. Where a range cannot
 * be punched it is zeroed, and where it cannot be zeroed zeros are written. A full file system is ENOSPC, as it is.
 * Hot path: submit and the completion handler neither allocate, await nor throw.
 */
import { errnoText, PsmaError, toPsmaError } from "../core/mod.ts";
import { FSYNC_DATASYNC, RWF_DSYNC } from "../codec/mod.ts";
import {
  allocatedBytes,
  claimFile,
  claimHolder,
  closeFile,
  type DirectAlignment,
  directAlignment,
  fileSize,
  livesInMemory,
  type Memory,
  nextDataRun,
  openFile,
  type Reactor,
  readNow,
  releaseFile,
  truncateFile,
  writeNow,
} from "../sys/mod.ts";
import type { Backend, Extent, LossPolicy } from "./backend.ts";
import { BackendMeter } from "./meter.ts";
import { OPERATION, OPERATION_FLAG, type Operations } from "./operations.ts";
import { type AlignedEngine, UnalignedOperations } from "./unaligned.ts";
import { ZERO_BYTES, zeros } from "./zeros.ts";

const EINTR = 4, EIO = 5, EAGAIN = 11, EOPNOTSUPP = 95, EINVAL = 22, ESHUTDOWN = 108;
const PUNCH_HOLE_KEEP_SIZE = 0x03, ZERO_RANGE_KEEP_SIZE = 0x11;
/** Of a look for data: the thread's requests wait meanwhile. */
const RUNS_PER_TURN = 16;

/** Phases of one operation, in `operations.scratch`. */
const PHASE = { first: 0, writingZeros: 1, syncing: 2, punching: 3, zeroing: 4 } as const;
/** What direct I/O asks for where nobody tells: no disk has larger blocks than a page. */
const PAGE_ALIGNED: DirectAlignment = { memoryBytes: 4096, offsetBytes: 4096 };

export interface FileBackendOptions {
  readonly path: string;
  readonly reactor: Reactor;
  readonly operations: Operations;
  /** Bypasses the page cache. Operations that the disk cannot do as they are then cost a read and a write. */
  readonly direct?: boolean;
}

/** A descriptor that a backend takes over, and what it leads to. */
export interface OpenedFile {
  readonly fd: number;
  readonly sizeBytes: number;
  readonly description: string;
  /** Undefined through the page cache, which takes every alignment. */
  readonly alignment: DirectAlignment | undefined;
  /** Zeroing a range without punching it never means writing zeros. */
  readonly zeroesFast: boolean;
}

export class FileBackend implements Backend {
  readonly description: string;
  readonly meter: BackendMeter = new BackendMeter();
  readonly connected = true;
  onLost: (() => void) | undefined = undefined;
  readonly #fd: number;
  readonly #kind: number;
  readonly #reactor: Reactor;
  readonly #operations: Operations;
  readonly #zeros: Memory;
  readonly #unaligned: UnalignedOperations | undefined;
  readonly #zeroesFast: boolean;
  /** Bytes move at once, in `submit`. */
  readonly #inMemory: boolean;
  /** Of a file in memory: the run of data that was found last. The kernel goes through it page by page. */
  #lastRun: { readonly at: number; readonly end: number } | undefined;
  #sizeBytes: number;
  #inFlight = 0;
  #closed = false;
  #canPunch = true;
  #canZero = true;

  /**
   * Opens an existing file.
   * @throws {PsmaError} sys/... when it cannot be opened; state/direct when its file system or its length
   * does not allow direct I/O; state/in-use when another uses it.
   */
  constructor(options: FileBackendOptions, opened: OpenedFile = openExisting(options)) {
    this.description = opened.description;
    this.#fd = opened.fd;
    this.#sizeBytes = opened.sizeBytes;
    this.#zeroesFast = opened.zeroesFast;
    this.#reactor = options.reactor;
    this.#operations = options.operations;
    this.#kind = options.reactor.ring.register((op, result) => this.#completed(op, result));
    this.#zeros = zeros();
    this.#inMemory = opened.alignment === undefined && livesInMemory(opened.fd);
    const engine: AlignedEngine = {
      working: () => this.#inFlight,
      start: (op) => this.#begin(op),
      finish: (op, errno) => this.#finish(op, errno),
    };
    this.#unaligned = opened.alignment
      ? new UnalignedOperations(options.operations, engine, opened.alignment)
      : undefined;
  }

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  submit(op: number): void {
    this.#operations.begin(op, this.meter);
    // The descriptor's number may be another file's, and the completion another backend's.
    if (this.#closed) return this.#operations.complete(op, ESHUTDOWN);
    if (this.#unaligned !== undefined && this.#unaligned.takes(op)) return;
    this.#begin(op);
  }

  #begin(op: number) {
    this.#inFlight++;
    this.#start(op);
  }

  #start(op: number) {
    const operations = this.#operations, ring = this.#reactor.ring;
    operations.scratch[op] = PHASE.first;
    switch (operations.code[op]) {
      case OPERATION.read:
      case OPERATION.write:
        this.#transfer(op);
        return;
      case OPERATION.flush:
        // Memory has nothing to flush to.
        if (this.#inMemory) this.#done(op, 0);
        else ring.fsync(this.#fd, FSYNC_DATASYNC, this.#kind, op);
        return;
      default:
        this.#zero(op);
    }
  }

  /** The cheapest way that is left. On a device the kernel punches only where that reads as zeros. */
  #zero(op: number) {
    this.#lastRun = undefined;
    const operations = this.#operations, ring = this.#reactor.ring;
    const keeps = operations.code[op] === OPERATION.writeZeroes &&
      ((operations.flags[op] as number) & OPERATION_FLAG.noHole) !== 0;
    const punches = !keeps && this.#canPunch;
    if (!punches && !(this.#canZero && this.#zeroesAsAsked(op))) return this.#writeZeros(op);
    operations.scratch[op] = punches ? PHASE.punching : PHASE.zeroing;
    const at = operations.at[op] as number, length = operations.length[op] as number;
    const mode = punches ? PUNCH_HOLE_KEEP_SIZE : ZERO_RANGE_KEEP_SIZE;
    ring.fallocate(this.#fd, mode, at, length, this.#kind, op);
  }

  /** Not where only fast zeros are wanted, and the kernel may write them itself. */
  #zeroesAsAsked(op: number): boolean {
    const flags = this.#operations.flags[op] as number;
    return this.#zeroesFast || (flags & OPERATION_FLAG.fastZero) === 0;
  }

  #transfer(op: number) {
    const operations = this.#operations, done = operations.progress[op] as number;
    const at = (operations.at[op] as number) + done;
    const address = (operations.address[op] as number) + done;
    const length = (operations.length[op] as number) - done;
    const reads = operations.code[op] === OPERATION.read;
    if (this.#inMemory && this.#transferNow(reads, at, address, length)) {
      return this.#done(op, 0);
    }
    if (reads) {
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

  /** @returns whether all of it is done; what is not goes by the ring, which knows about errors. */
  #transferNow(reads: boolean, at: number, address: number, length: number): boolean {
    const count = reads
      ? readNow(this.#fd, at, address, length)
      : writeNow(this.#fd, at, address, length);
    this.#reactor.batches++;
    return count === length;
  }

  #writeZeros(op: number) {
    const operations = this.#operations;
    if (((operations.flags[op] as number) & OPERATION_FLAG.fastZero) !== 0) {
      return this.#done(op, EOPNOTSUPP);
    }
    const done = operations.progress[op] as number;
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
    } else if (phase === PHASE.punching || phase === PHASE.zeroing) this.#sync(op);
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
    if (errno === EINTR || errno === EAGAIN) {
      if (phase === PHASE.writingZeros) this.#writeZeros(op);
      else if (phase === PHASE.syncing) this.#sync(op);
      else if (transfers) this.#transfer(op);
      else this.#start(op);
      return;
    }
    if (phase === PHASE.punching || phase === PHASE.zeroing) {
      // Refused for this range only: the next one may do.
      if (errno === EINVAL) return this.#writeZeros(op);
      if (errno === EOPNOTSUPP) {
        if (phase === PHASE.punching) this.#canPunch = false;
        else this.#canZero = false;
        return this.#zero(op);
      }
    }
    this.#done(op, errno);
  }

  #done(op: number, errno: number) {
    this.#inFlight--;
    const unaligned = this.#unaligned;
    if (unaligned === undefined) return this.#operations.complete(op, errno);
    if (unaligned.runs(op)) unaligned.stepDone(op, errno);
    else this.#finish(op, errno);
  }

  /** What waits for an unaligned operation, or is one, goes on. */
  #finish(op: number, errno: number) {
    this.#operations.complete(op, errno);
    this.#unaligned?.resume();
  }

  async dataExtents(from: number, length: number): Promise<readonly Extent[]> {
    const extents: Extent[] = [];
    const end = from + length;
    if (this.#closed) {
      throw new PsmaError("state/closed", `Cannot look into ${this.description}: it is closed`);
    }
    // Counted as in flight, so that the descriptor stays open meanwhile.
    this.#inFlight++;
    try {
      for (let at = from, runs = 0; at < end; runs++) {
        const run = this.#nextRun(at);
        if (!run || run.at >= end) break;
        extents.push({ at: run.at, length: Math.min(run.end, end) - run.at });
        at = run.end;
        if (runs % RUNS_PER_TURN === RUNS_PER_TURN - 1) await this.#reactor.sleep(0);
      }
    } finally {
      this.#inFlight--;
      this.#unaligned?.resume();
    }
    return extents;
  }

  /** A run that was found before may hold holes by now, and is taken for data until something is zeroed here. */
  #nextRun(at: number): { readonly at: number; readonly end: number } | undefined {
    const last = this.#lastRun;
    if (last !== undefined && at >= last.at && at < last.end) return { at, end: last.end };
    const run = nextDataRun(this.#fd, at);
    if (this.#inMemory) this.#lastRun = run;
    return run;
  }

  allocatedBytes(): number | undefined {
    return allocatedBytes(this.#fd);
  }

  async grow(sizeBytes: number): Promise<void> {
    if (sizeBytes <= this.#sizeBytes) return;
    this.#sizeBytes = await this.lengthen(this.#fd, sizeBytes);
  }

  /** Sees to it that the descriptor leads to so many bytes, durably. @returns how many there are then. */
  protected async lengthen(fd: number, sizeBytes: number): Promise<number> {
    const block = this.#unaligned?.alignment.offsetBytes ?? 1;
    const length = Math.ceil(sizeBytes / block) * block;
    truncateFile(fd, length);
    const result = await this.#reactor.fsync(fd);
    if (result < 0) {
      throw new PsmaError("io/grow", `Cannot grow ${this.description}: ${errnoText(result)}`);
    }
    return length;
  }

  raiseEpoch(_epoch: number): Promise<void> {
    return Promise.resolve();
  }

  setLossPolicy(_policy: LossPolicy): void {}

  abort(): void {}

  /** Waits for what is in flight: a descriptor's number must not be re-used under the ring. What comes later fails. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    while (this.#inFlight + (this.#unaligned?.waiting ?? 0) > 0) await this.#reactor.sleep(1);
    this.#unaligned?.release();
    this.#reactor.ring.unregister(this.#kind);
    releaseFile(this.#fd);
    closeFile(this.#fd);
  }
}

function openExisting({ path, direct = false }: FileBackendOptions): OpenedFile {
  const description = `file ${path}`;
  const fd = claimed(path, direct ? openBypassing(path) : openFile(path));
  const sizeBytes = fileSize(fd);
  if (!direct) return { fd, sizeBytes, description, alignment: undefined, zeroesFast: true };
  const alignment = directAlignment(fd) ?? PAGE_ALIGNED;
  if (sizeBytes % alignment.offsetBytes !== 0) {
    closeFile(fd);
    throw new PsmaError(
      "state/direct",
      `Cannot use ${path} without the page cache: its ${sizeBytes} bytes are no multiple of ` +
        `${alignment.offsetBytes}`,
      { hint: "Lengthen the file to a multiple, or leave out `direct`." },
    );
  }
  return { fd, sizeBytes, description, alignment, zeroesFast: true };
}

/**
 * Two who write one file would each overwrite what the other acknowledged. And direct writes of a killed
 * process may land after its end: whoever wrote newer bytes before would lose them.
 */
function claimed(path: string, fd: number): number {
  if (claimFile(fd)) return fd;
  const holder = claimHolder(fd);
  closeFile(fd);
  throw new PsmaError(
    "state/in-use",
    `Cannot use ${path}: ${
      holder === undefined ? "another process" : `process ${holder}`
    } uses it, ` +
      "or writes of one that was killed are under way",
    { hint: `It can be used when they have ended; lsof ${path} shows who has it open.` },
  );
}

function openBypassing(path: string): number {
  try {
    return openFile(path, { direct: true });
  } catch (error) {
    if (toPsmaError(error).code !== `sys/errno-${EINVAL}`) throw error;
    throw new PsmaError(
      "state/direct",
      `Cannot use ${path} without the page cache: its file system does not support it`,
      { hint: "Leave out `direct`, or move the file.", cause: error },
    );
  }
}
