/**
 * A volume as one mounted file, served by the data-plane thread over /dev/fuse; a loop device on top
 * makes it a block device.
 *
 * Hot path: no await, throw or allocation per request. /dev/fuse is O_NONBLOCK and polled, because reading
 * a blocking one can hang this thread inside the kernel. A request is read so that a
 * WRITE's payload lands page-aligned in the slot's buffer; replies leave from the slot's headroom and
 * never overwrite a WRITE's payload. A reply leaves at once, by a system call of its own: the one who waits for
 * it works on while the rest of the batch is served. Without a free slot nothing is read: the kernel's queue holds the
 * application back, and the loop goes on after the batch that freed one.
 *
 * Faults: a request that is no whole request, and a reply that the kernel refuses, end the export with an
 * error (the application sees EIO); an interrupted request is forgotten (ENOENT); an unmounted or
 * aborted connection (ENODEV, ECONNABORTED) ends the export. What becomes of the file when this process is
 * killed is held.ts's affair.
 */
import { assert, type Deferred, errnoText, PsmaError, systemClock } from "../../core/mod.ts";
import {
  checkFuseRequest,
  decodeFuseInit,
  encodeFuseAttrReply,
  encodeFuseInitReply,
  encodeFuseOpenReply,
  encodeFuseOutHeader,
  encodeFuseStatfsReply,
  encodeFuseWriteReply,
  FALLOCATE_MODE,
  FUSE_MAJOR,
  FUSE_MINOR_MIN,
  FUSE_OPCODE,
  FUSE_OPEN_FLAG,
  FUSE_OUT_HEADER_BYTES,
  FUSE_SETATTR_SIZE,
  FUSE_WRITE_PAYLOAD_BYTES,
  fuseFallocateLength,
  fuseFallocateMode,
  type FuseInit,
  fuseIoLength,
  fuseIoOffset,
  fuseOpcode,
  fuseSetattrSize,
  fuseSetattrValid,
  fuseUniqueHigh,
  fuseUniqueLow,
  fuseWriteOpenFlags,
} from "../../codec/mod.ts";
import {
  closeFile,
  hasMore,
  type Reactor,
  readFuse,
  replyFuse,
  umountLazily,
} from "../../sys/mod.ts";
import { HEADROOM, OPERATION, OPERATION_FLAG, type Requests } from "../../volume/mod.ts";
import { type FuseMount, type FuseVolume, mountFuseFile } from "./mount.ts";
import { type FuseTable, fuseTable } from "./table.ts";

const EPERM = 1, ENOENT = 2, EINTR = 4, EAGAIN = 11, ENODEV = 19, EINVAL = 22;
const ENOSYS = 38, EPROTO = 71, EOPNOTSUPP = 95, ECONNABORTED = 103;
const POLLIN = 1, POLLERR = 8;
const O_DSYNC = 0o10000;
const REGULAR_FILE_MODE = 0o100600;
/** Requests taken after one batch: then what they submit leaves, and other exports have their turn. */
const BURST_MAX = 32;

export class FuseExport {
  readonly path: string;
  readonly #volume: FuseVolume;
  readonly #requests: Requests;
  readonly #reactor: Reactor;
  readonly #table: FuseTable;
  readonly #words: Uint32Array;
  readonly #onEnd: (error?: PsmaError) => void;
  readonly #mountedSeconds: number;
  readonly #fd: number;
  readonly #index: number;
  /** The kernel may have a request for us: set by the poll and by every request read, cleared by EAGAIN. */
  #mayHaveMore = false;
  /** Slots of this export: requests in service and replies on their way. */
  #held = 0;
  #pollArmed = false;
  #cancelling = false;
  #ended = false;
  #closing: Promise<void> | undefined;
  #drained: (() => void) | undefined;
  readonly #initialised: Deferred<FuseInit | undefined>;

  private constructor(options: FuseMount, fd: number) {
    this.path = options.path;
    this.#volume = options.volume;
    this.#requests = options.requests;
    this.#reactor = options.reactor;
    this.#onEnd = options.onEnd;
    this.#mountedSeconds = Math.floor((options.clock ?? systemClock).nowMs() / 1000);
    this.#table = fuseTable(options.reactor, options.requests);
    this.#words = this.#table.words;
    this.#fd = fd;
    this.#initialised = options.reactor.deferred();
    this.#index = this.#table.add(this);
  }

  /**
   * Mounts and starts to serve. The mount's first request is answered by this thread's loop, so nobody may
   * wait for the file on this thread.
   * @throws {PsmaError} sys/permission, sys/errno-N; state/not-empty where the file holds something;
   * state/mounted where something is mounted on it already.
   */
  static mount(options: FuseMount): FuseExport {
    const { path, requests } = options;
    const mounted = new FuseExport(options, mountFuseFile(path, requests.maxIo));
    mounted.begin();
    return mounted;
  }

  /**
   * For a connection that another process mounted and that the kernel has greeted already. Nothing is taken
   * from it before `begin`.
   */
  static adopt(options: FuseMount, fd: number): FuseExport {
    return new FuseExport(options, fd);
  }

  /** Starts to take requests. */
  begin(): void {
    this.#mayHaveMore = true;
    this.#armPoll();
    this.#reactor.wake();
  }

  /** Before `begin`: lets go of the connection and leaves it as it is. */
  abandon(): void {
    this.#table.remove(this.#index);
    closeFile(this.#fd);
  }

  /** By what the slots of this export are marked (ledger.ts). */
  get mark(): number {
    return this.#index + 1;
  }

  /**
   * Before `begin`: serves a request that a former server had taken. @returns once its answer has left;
   * that the kernel no longer waits for it is no failure.
   */
  async replay(request: Uint8Array): Promise<void> {
    const requests = this.#requests;
    let slot = requests.take(this.#table.owner);
    for (; slot < 0; slot = requests.take(this.#table.owner)) await this.#reactor.sleep(1);
    requests.session[slot] = this.#index;
    this.#held++;
    (this.#table.buffers[slot] as Uint8Array<ArrayBuffer>).set(request);
    const { promise, resolve } = this.#reactor.deferred<void>();
    this.#drained = () => resolve();
    this.#dispatch(slot, request.length);
    await promise;
  }

  /** The connection's descriptor. */
  get fd(): number {
    return this.#fd;
  }

  /** What the kernel offered when it opened the session; undefined when it ended before. */
  initialised(): Promise<FuseInit | undefined> {
    return this.#initialised.promise;
  }

  /** True from the unmount, or a failure, on: nothing is served any more. */
  get ended(): boolean {
    return this.#ended;
  }

  /**
   * Stops serving: unmounts lazily where nobody has done so, answers what is in service, then closes
   * the connection. Whoever still uses the file, such as a loop device, gets EIO from then on. Idempotent.
   */
  close(): Promise<void> {
    return this.#closing ??= this.#close();
  }

  async #close(): Promise<void> {
    this.#initialised.resolve(undefined);
    if (!this.#ended) umountLazily(this.path);
    const { promise, resolve } = this.#reactor.deferred<void>();
    this.#drained = () => resolve();
    // The ring's poll holds the connection open: closing the descriptor alone would not end it.
    this.#cancelling = true;
    this.#reactor.ring.cancelFd(this.#fd, this.#table.cancelKind, this.#index);
    await promise;
    this.#table.remove(this.#index);
    closeFile(this.#fd);
  }

  #checkDrained(): void {
    if (this.#drained && this.#held === 0 && !this.#pollArmed && !this.#cancelling) {
      const drained = this.#drained;
      this.#drained = undefined;
      drained();
    }
  }

  onCancelled(): void {
    this.#cancelling = false;
    this.#checkDrained();
  }

  #armPoll(): void {
    this.#pollArmed = true;
    this.#reactor.ring.pollMultishot(this.#fd, POLLIN, this.#table.pollKind, this.#index);
  }

  onPoll(result: number, flags: number): void {
    if (result > 0) this.#mayHaveMore = true;
    if (!hasMore(flags)) this.#pollArmed = false;
    if (result > 0 && (result & POLLERR) !== 0) this.#end();
    if (!this.#pollArmed && !this.#ended && !this.#closing) this.#armPoll();
    this.#checkDrained();
  }

  /**
   * Takes requests while the kernel has some and slots are free; called after every batch, so that what
   * it submits leaves together. A system call each, because io_uring would keep a READ that finds nothing,
   * and its slot with it, and wake every such READ for every request.
   */
  ask(): void {
    const requests = this.#requests, table = this.#table;
    const bytes = FUSE_WRITE_PAYLOAD_BYTES + requests.maxIo;
    for (let i = 0; i < BURST_MAX && this.#mayHaveMore && !this.#ended && !this.#closing; i++) {
      const slot = requests.take(table.owner);
      if (slot < 0) return;
      requests.session[slot] = this.#index;
      this.#held++;
      if (table.present[slot] === 0) table.prepare(slot);
      // Told before the kernel hands a request over, with no header yet to take it for: a kill may come between.
      this.#words[(requests.dataOffset(slot) - FUSE_WRITE_PAYLOAD_BYTES) / 4] = 0;
      table.marks[slot] = this.#index + 1;
      const result = readFuse(
        this.#fd,
        table.buffers[slot] as Uint8Array<ArrayBuffer>,
        bytes,
      );
      if (result > 0) this.#dispatch(slot, result);
      else this.#readNothing(slot, -result);
    }
    // Stopped by the limit: come back after what was taken has been submitted, without waiting.
    if (this.#mayHaveMore && !this.#ended) this.#reactor.wake();
  }

  #readNothing(slot: number, code: number): void {
    this.#release(slot);
    switch (code) {
      case EAGAIN:
        this.#mayHaveMore = false;
        break;
      case EINTR:
      case ENOENT:
        break;
      case ENODEV:
      case ECONNABORTED:
        this.#end();
        break;
      default:
        this.#fail(`reading a request: ${errnoText(code)}`);
    }
  }

  #dispatch(slot: number, bytes: number): void {
    const requests = this.#requests, words = this.#words;
    const at = (requests.dataOffset(slot) - FUSE_WRITE_PAYLOAD_BYTES) / 4;
    const check = checkFuseRequest(words, at, bytes);
    if (check < 0) {
      this.#release(slot);
      return this.#fail(`a request of ${bytes} bytes is not whole`);
    }
    requests.cookieLow[slot] = fuseUniqueLow(words, at);
    requests.cookieHigh[slot] = fuseUniqueHigh(words, at);
    if (check > 0) return this.#reply(slot, check, 0);
    const O = FUSE_OPCODE;
    switch (fuseOpcode(words, at)) {
      case O.read:
        return this.#read(slot, at);
      case O.write:
        return this.#write(slot, at);
      case O.fsync:
        return this.#submit(slot, OPERATION.flush, 0, 0, 0);
      case O.fallocate:
        return this.#fallocate(slot, at);
      case O.forget:
      case O.batchForget:
      case O.interrupt:
      case O.notifyReply:
        return this.#release(slot);
      default:
        return this.#answerAboutFile(slot, at);
    }
  }

  #read(slot: number, at: number): void {
    const from = fuseIoOffset(this.#words, at), length = fuseIoLength(this.#words, at);
    if (length > this.#requests.maxIo) return this.#reply(slot, EINVAL, 0);
    // Reading past the end of a file is no error, and reads less.
    const rest = Math.max(0, this.#volume.sizeBytes - from);
    if (length === 0 || rest === 0) return this.#reply(slot, 0, 0);
    this.#submit(slot, OPERATION.read, from, Math.min(length, rest), 0);
  }

  #write(slot: number, at: number): void {
    const length = fuseIoLength(this.#words, at);
    const durable = (fuseWriteOpenFlags(this.#words, at) & O_DSYNC) !== 0;
    if (length === 0) return this.#replyWritten(slot, 0);
    const flags = durable ? OPERATION_FLAG.fua : 0;
    this.#submit(slot, OPERATION.write, fuseIoOffset(this.#words, at), length, flags);
  }

  /**
   * A loop device's discard is PUNCH_HOLE; its write-zeroes is ZERO_RANGE where blocks must stay allocated,
   * else PUNCH_HOLE. All read as zeros afterwards.
   */
  #fallocate(slot: number, at: number): void {
    const mode = fuseFallocateMode(this.#words, at);
    const from = fuseIoOffset(this.#words, at), asked = fuseFallocateLength(this.#words, at);
    const zeroRange = (mode & FALLOCATE_MODE.zeroRange) !== 0;
    if (!zeroRange && (mode & FALLOCATE_MODE.punchHole) === 0) {
      return this.#reply(slot, EOPNOTSUPP, 0);
    }
    const rest = Math.max(0, this.#volume.sizeBytes - from);
    const length = (mode & FALLOCATE_MODE.keepSize) !== 0 ? Math.min(asked, rest) : asked;
    if (length === 0) return this.#reply(slot, 0, 0);
    if (zeroRange) this.#submit(slot, OPERATION.writeZeroes, from, length, OPERATION_FLAG.noHole);
    else this.#submit(slot, OPERATION.trim, from, length, 0);
  }

  #submit(slot: number, code: number, at: number, length: number, flags: number): void {
    this.#requests.describe(slot, code, at, length, flags);
    this.#volume.submit(slot);
  }

  /** The volume is done with a request of ours. */
  onComplete(slot: number): void {
    const requests = this.#requests;
    const failure = requests.errno[slot] as number, length = requests.length[slot] as number;
    const code = requests.code[slot] as number;
    if (failure !== 0) this.#reply(slot, failure, 0);
    else if (code === OPERATION.read) this.#replyData(slot, length);
    else if (code === OPERATION.write) this.#replyWritten(slot, length);
    else this.#reply(slot, 0, 0);
  }

  /** Rare requests; everything unknown is ENOSYS, after which the kernel stops asking or helps itself. */
  #answerAboutFile(slot: number, at: number): void {
    const words = this.#words, body = this.#headroom(slot) + FUSE_OUT_HEADER_BYTES / 4;
    const O = FUSE_OPCODE;
    switch (fuseOpcode(words, at)) {
      case O.init:
        return this.#init(slot, at);
      case O.setattr: {
        // The size is the volume's affair: `> file` must not truncate it. Times may be set, to no effect.
        const sized = (fuseSetattrValid(words, at) & FUSE_SETATTR_SIZE) !== 0;
        if (sized && fuseSetattrSize(words, at) !== this.#volume.sizeBytes) {
          return this.#reply(slot, EPERM, 0);
        }
        return this.#reply(slot, 0, this.#attributes(body));
      }
      case O.getattr:
        return this.#reply(slot, 0, this.#attributes(body));
      case O.open: {
        const flags = FUSE_OPEN_FLAG.directIo | FUSE_OPEN_FLAG.parallelDirectWrites;
        return this.#reply(slot, 0, encodeFuseOpenReply(words, body, flags));
      }
      case O.statfs:
        return this.#reply(slot, 0, encodeFuseStatfsReply(words, body, this.#volume.sizeBytes));
      case O.release:
      case O.destroy:
        return this.#reply(slot, 0, 0);
      default:
        return this.#reply(slot, ENOSYS, 0);
    }
  }

  #attributes(body: number): number {
    return encodeFuseAttrReply(this.#words, body, {
      sizeBytes: this.#volume.sizeBytes,
      timeSeconds: this.#mountedSeconds,
      mode: REGULAR_FILE_MODE,
    });
  }

  #init(slot: number, at: number): void {
    const asked = decodeFuseInit(this.#words, at);
    if (asked.major !== FUSE_MAJOR || asked.minor < FUSE_MINOR_MIN) {
      this.#reply(slot, EPROTO, 0);
      return this.#fail(
        `the kernel speaks version ${asked.major}.${asked.minor}, not 7.31 or later`,
      );
    }
    const body = this.#headroom(slot) + FUSE_OUT_HEADER_BYTES / 4;
    const bytes = encodeFuseInitReply(this.#words, body, {
      asked,
      maxIoBytes: this.#requests.maxIo,
      maxBackground: this.#requests.count,
    });
    this.#reply(slot, 0, bytes);
    this.#initialised.resolve(asked);
  }

  /** Index of the first word of the slot's headroom. */
  #headroom(slot: number): number {
    return (this.#requests.dataOffset(slot) - HEADROOM) / 4;
  }

  /** Replies from the headroom, whose body has been written already. */
  #reply(slot: number, failure: number, bodyBytes: number): void {
    this.#send(slot, this.#requests.dataOffset(slot) - HEADROOM, bodyBytes, failure);
  }

  #replyWritten(slot: number, written: number): void {
    const body = this.#headroom(slot) + FUSE_OUT_HEADER_BYTES / 4;
    this.#reply(slot, 0, encodeFuseWriteReply(this.#words, body, written));
  }

  /** Replies with the slot's data: the header goes right in front of it. */
  #replyData(slot: number, length: number): void {
    this.#send(slot, this.#requests.dataOffset(slot) - FUSE_OUT_HEADER_BYTES, length, 0);
  }

  #send(slot: number, offset: number, bodyBytes: number, failure: number): void {
    if (this.#ended) return this.#release(slot);
    const requests = this.#requests;
    const low = requests.cookieLow[slot] as number, high = requests.cookieHigh[slot] as number;
    const bytes = encodeFuseOutHeader(this.#words, offset / 4, bodyBytes, failure, low, high);
    const address = requests.arena.address + offset;
    const result = replyFuse(this.#fd, address, bytes);
    this.#release(slot);
    if (result === 0 || result === -ENOENT) return;
    if (result === -ENODEV || result === -ECONNABORTED) this.#end();
    else this.#fail(`the kernel refused a reply: ${errnoText(result)}`);
  }

  #release(slot: number): void {
    this.#held--;
    assert(this.#held >= 0, "FUSE slot released twice");
    this.#table.marks[slot] = 0;
    this.#requests.release(slot);
    this.#checkDrained();
  }

  #fail(reason: string): void {
    this.#end(
      new PsmaError("io/fuse", `Cannot serve ${this.#volume.name} as a file: ${reason}`, {
        hint: "Detach the volume and attach it again.",
      }),
    );
  }

  #end(error?: PsmaError): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#initialised.resolve(undefined);
    this.#onEnd(error);
  }
}
