/**
 * io_uring from one thread: submit, wait, reap. Hot path: no await, no throw, no allocation per operation.
 *
 * Every operation carries a `kind` (who handles its completion) and an `index` (which of that handler's
 * records); together they are the 64-bit user_data. A handler is registered before its first operation and
 * may be unregistered after the last one's completion; only then is its number used again.
 *
 * Faults: a failed set-up flag is dropped and tried again (older kernels); EINTR, EAGAIN and EBUSY of
 * io_uring_enter are waited out; anything else is a broken invariant. A completion's result is passed on
 * as the kernel gave it: short counts and negative errno are the handler's to deal with.
 */
import { assert, BrokenInvariant } from "../core/mod.ts";
import {
  CQE,
  ENTER,
  FEATURE,
  OFFSET_SQ_RING,
  OFFSET_SQES,
  PARAMS_BYTES,
  PARAMS_U32,
  POLL_ADD_MULTI,
  SETUP,
  URING_OP,
} from "../codec/mod.ts";
import { errno, libc, sysError } from "./libc.ts";
import { allocateMemory, mapRing, type Memory, unmapMemory } from "./memory.ts";

const SYS_IO_URING_SETUP = 425n, SYS_IO_URING_ENTER = 426n;
const EINTR = 4, EAGAIN = 11, EBUSY = 16, ETIME = 62, ENOSYS = 38, EPERM = 1;
const TWO_32 = 4294967296;
/** 64 bytes each. */
const SQE_WORDS = 16;
const AT_FDCWD = -100;
const MSG_NOSIGNAL = 0x4000, MSG_WAITALL = 0x100;
const SOCK_CLOEXEC = 0o2000000;

/** @param result what the kernel answered: a count, or a negative errno. @param flags CQE flags. */
export type CompletionHandler = (index: number, result: number, flags: number) => void;

/** What the rooms above need of a ring. Positional for the hot path. */
export interface Ring {
  /** @returns the handler's kind. */
  register(handler: CompletionHandler): number;
  /** Gives a kind back, of which nothing is in flight: its number will stand for another handler. */
  unregister(kind: number): void;
  read(fd: number, at: number, address: number, length: number, kind: number, index: number): void;
  write(
    fd: number,
    at: number,
    address: number,
    length: number,
    rwFlags: number,
    kind: number,
    index: number,
  ): void;
  fsync(fd: number, flags: number, kind: number, index: number): void;
  fallocate(
    fd: number,
    mode: number,
    at: number,
    length: number,
    kind: number,
    index: number,
  ): void;
  recv(
    fd: number,
    address: number,
    length: number,
    all: boolean,
    kind: number,
    index: number,
  ): void;
  send(fd: number, address: number, length: number, kind: number, index: number): void;
  sendmsg(fd: number, msghdrAddress: number, kind: number, index: number): void;
  accept(fd: number, kind: number, index: number): void;
  connect(fd: number, sockaddr: number, length: number, kind: number, index: number): void;
  pollMultishot(fd: number, events: number, kind: number, index: number): void;
  /** Completes in the next batch. */
  nop(kind: number, index: number): void;
  /** Completes once. */
  poll(fd: number, events: number, kind: number, index: number): void;
  timeout(timespecAddress: number, kind: number, index: number): void;
  /** Ends the timeout `ofKind`, `ofIndex` early: it then completes with -ECANCELED. */
  cancelTimeout(ofKind: number, ofIndex: number, kind: number, index: number): void;
  cancelFd(fd: number, kind: number, index: number): void;
  openat(path: number, flags: number, mode: number, kind: number, index: number): void;
  renameat(from: number, to: number, kind: number, index: number): void;
  unlinkat(path: number, kind: number, index: number): void;
  /**
   * A driver's own command. @param argument,result the first two words of the 16 bytes that it reads; the
   * other two are zero.
   */
  driverCommand(
    fd: number,
    command: number,
    argument: number,
    result: number,
    kind: number,
    index: number,
  ): void;
  /** Operations pushed and not yet handed to the kernel. */
  readonly pending: number;
  /** True while completions have arrived that were not reaped. */
  readonly hasArrived: boolean;
  /** Hands over what was pushed; waits for `waitFor` completions, at most `timeoutMs` (0: no limit). */
  submit(waitFor: number, timeoutMs: number): void;
  /** Calls handlers of all completions that have arrived. @returns how many. */
  reap(): number;
  close(): void;
}

export interface RingOptions {
  /** Submission entries, a power of two. The completion ring is four times as large. */
  readonly entries: number;
}

/** What the kernel gave us, for `psma doctor`. */
export interface RingFeatures {
  readonly entries: number;
  readonly setupFlags: number;
  readonly features: number;
}

export class UringRing implements Ring {
  readonly fd: number;
  readonly features: RingFeatures;
  readonly #handlers: CompletionHandler[] = [];
  readonly #freeKinds: number[] = [];
  readonly #ring: Memory;
  readonly #sqes: Memory;
  readonly #sqTailShared: Uint32Array;
  readonly #sqHeadShared: Uint32Array;
  readonly #sqMask: number;
  readonly #sqe: Uint32Array;
  readonly #cqHeadShared: Uint32Array;
  readonly #cqTailShared: Uint32Array;
  readonly #cqMask: number;
  readonly #cqe: Int32Array;
  readonly #enterArg: Memory;
  readonly #enterArg64: BigUint64Array;
  readonly #enterArgAddress: bigint;
  readonly #enter: ReturnType<typeof libc>["ioUringEnter"];
  #sqTail: number;
  #cqHead: number;
  #pending = 0;

  /** @throws {PsmaError} sys/errno-38 without io_uring, sys/permission where it is forbidden. */
  constructor(options: RingOptions) {
    const params = new Uint32Array(PARAMS_BYTES / 4);
    this.fd = setUp(options, params);
    const at = (field: keyof typeof PARAMS_U32) => params[PARAMS_U32[field]] as number;
    const sqEntries = at("sqEntries"), cqEntries = at("cqEntries");
    this.features = { entries: sqEntries, setupFlags: at("flags"), features: at("features") };
    assert(
      this.features.features & FEATURE.extArg,
      "io_uring has no EXT_ARG: PSMA needs Linux 5.19",
    );
    assert(this.features.features & FEATURE.nodrop, "io_uring may drop completions");
    const ringBytes = Math.max(at("sqOffArray") + sqEntries * 4, at("cqOffCqes") + cqEntries * 16);
    this.#ring = mapRing(this.fd, ringBytes, OFFSET_SQ_RING);
    this.#sqes = mapRing(this.fd, sqEntries * SQE_WORDS * 4, OFFSET_SQES);
    const word = (offset: number) => new Uint32Array(this.#ring.bytes.buffer, offset, 1);
    this.#sqHeadShared = word(at("sqOffHead"));
    this.#sqTailShared = word(at("sqOffTail"));
    this.#sqMask = word(at("sqOffMask"))[0] as number;
    this.#cqHeadShared = word(at("cqOffHead"));
    this.#cqTailShared = word(at("cqOffTail"));
    this.#cqMask = word(at("cqOffMask"))[0] as number;
    this.#cqe = new Int32Array(this.#ring.bytes.buffer, at("cqOffCqes"), cqEntries * 4);
    this.#sqe = new Uint32Array(this.#sqes.bytes.buffer);
    const array = new Uint32Array(this.#ring.bytes.buffer, at("sqOffArray"), sqEntries);
    for (let i = 0; i < sqEntries; i++) array[i] = i;
    this.#sqTail = this.#sqTailShared[0] as number;
    this.#cqHead = this.#cqHeadShared[0] as number;
    // io_uring_getevents_arg {u64 sigmask; u32 size; u32 pad; u64 timespec*} then the timespec itself.
    this.#enterArg = allocateMemory(4096);
    this.#enterArgAddress = BigInt(this.#enterArg.address);
    this.#enterArg64 = new BigUint64Array(this.#enterArg.bytes.buffer, 0, 8);
    this.#enterArg64[2] = BigInt(this.#enterArg.address + 32);
    this.#enter = libc().ioUringEnter;
  }

  get pending(): number {
    return this.#pending;
  }

  register(handler: CompletionHandler): number {
    const kind = this.#freeKinds.shift() ?? this.#handlers.length;
    this.#handlers[kind] = handler;
    return kind;
  }

  unregister(kind: number): void {
    assert(this.#handlers[kind] !== stray, "a kind is unregistered twice");
    this.#handlers[kind] = stray;
    this.#freeKinds.push(kind);
  }

  read(fd: number, at: number, address: number, length: number, kind: number, index: number): void {
    this.#push(URING_OP.read, fd, at, address, length, 0, kind, index);
  }

  write(
    fd: number,
    at: number,
    address: number,
    length: number,
    rwFlags: number,
    kind: number,
    index: number,
  ): void {
    this.#push(URING_OP.write, fd, at, address, length, rwFlags, kind, index);
  }

  fsync(fd: number, flags: number, kind: number, index: number): void {
    this.#push(URING_OP.fsync, fd, 0, 0, 0, flags, kind, index);
  }

  fallocate(
    fd: number,
    mode: number,
    at: number,
    length: number,
    kind: number,
    index: number,
  ): void {
    this.#push(URING_OP.fallocate, fd, at, length, mode, 0, kind, index);
  }

  recv(
    fd: number,
    address: number,
    length: number,
    all: boolean,
    kind: number,
    index: number,
  ): void {
    this.#push(URING_OP.recv, fd, 0, address, length, all ? MSG_WAITALL : 0, kind, index);
  }

  send(fd: number, address: number, length: number, kind: number, index: number): void {
    this.#push(
      URING_OP.send,
      fd,
      0,
      address,
      length,
      MSG_NOSIGNAL | MSG_WAITALL,
      kind,
      index,
    );
  }

  sendmsg(fd: number, msghdrAddress: number, kind: number, index: number): void {
    this.#push(URING_OP.sendmsg, fd, 0, msghdrAddress, 1, MSG_NOSIGNAL | MSG_WAITALL, kind, index);
  }

  accept(fd: number, kind: number, index: number): void {
    this.#push(URING_OP.accept, fd, 0, 0, 0, SOCK_CLOEXEC, kind, index);
  }

  connect(fd: number, sockaddr: number, length: number, kind: number, index: number): void {
    this.#push(URING_OP.connect, fd, length, sockaddr, 0, 0, kind, index);
  }

  pollMultishot(fd: number, events: number, kind: number, index: number): void {
    this.#push(URING_OP.pollAdd, fd, 0, 0, POLL_ADD_MULTI, events, kind, index);
  }

  poll(fd: number, events: number, kind: number, index: number): void {
    this.#push(URING_OP.pollAdd, fd, 0, 0, 0, events, kind, index);
  }

  nop(kind: number, index: number): void {
    this.#push(URING_OP.nop, -1, 0, 0, 0, 0, kind, index);
  }

  timeout(timespecAddress: number, kind: number, index: number): void {
    this.#push(URING_OP.timeout, -1, 0, timespecAddress, 1, 0, kind, index);
  }

  cancelTimeout(ofKind: number, ofIndex: number, kind: number, index: number): void {
    this.#push(URING_OP.timeoutRemove, -1, 0, ofKind * TWO_32 + ofIndex, 0, 0, kind, index);
  }

  /** Cancels everything in flight on a descriptor (IORING_ASYNC_CANCEL_ALL | CANCEL_FD, Linux 5.19). */
  cancelFd(fd: number, kind: number, index: number): void {
    this.#push(URING_OP.asyncCancel, fd, 0, 0, 0, 3, kind, index);
  }

  openat(path: number, flags: number, mode: number, kind: number, index: number): void {
    this.#push(URING_OP.openat, AT_FDCWD, 0, path, mode, flags, kind, index);
  }

  renameat(from: number, to: number, kind: number, index: number): void {
    this.#push(URING_OP.renameat, AT_FDCWD, to, from, AT_FDCWD >>> 0, 0, kind, index);
  }

  unlinkat(path: number, kind: number, index: number): void {
    this.#push(URING_OP.unlinkat, AT_FDCWD, 0, path, 0, 0, kind, index);
  }

  driverCommand(
    fd: number,
    command: number,
    argument: number,
    result: number,
    kind: number,
    index: number,
  ): void {
    this.#push(URING_OP.driverCommand, fd, command, 0, 0, 0, kind, index);
    // The entry just pushed: its last 16 bytes are the command's, where other operations have none.
    const i = (((this.#sqTail - 1) >>> 0) & this.#sqMask) * SQE_WORDS;
    this.#sqe[i + 12] = argument;
    this.#sqe[i + 13] = result;
  }

  #push(
    opcode: number,
    fd: number,
    at: number,
    address: number,
    length: number,
    operationFlags: number,
    kind: number,
    index: number,
  ): void {
    // Again while the kernel takes none, for want of memory: an entry that it has not read must stand.
    while (this.#pending === this.features.entries) this.submit(0, 0);
    const sqe = this.#sqe;
    const i = (this.#sqTail & this.#sqMask) * SQE_WORDS;
    sqe[i] = opcode;
    sqe[i + 1] = fd;
    sqe[i + 2] = at;
    sqe[i + 3] = at / TWO_32;
    sqe[i + 4] = address;
    sqe[i + 5] = address / TWO_32;
    sqe[i + 6] = length;
    sqe[i + 7] = operationFlags;
    sqe[i + 8] = index;
    sqe[i + 9] = kind;
    sqe[i + 10] = 0;
    sqe[i + 11] = 0;
    sqe[i + 12] = 0;
    sqe[i + 13] = 0;
    this.#sqTail = (this.#sqTail + 1) >>> 0;
    this.#pending++;
  }

  submit(waitFor: number, timeoutMs: number): void {
    Atomics.store(this.#sqTailShared, 0, this.#sqTail);
    let flags = ENTER.getEvents;
    let argument = 0n, argumentBytes = 0n;
    if (timeoutMs > 0) {
      this.#enterArg64[4] = BigInt(Math.floor(timeoutMs / 1000));
      this.#enterArg64[5] = BigInt(Math.floor((timeoutMs % 1000) * 1e6));
      flags |= ENTER.extArg;
      argument = this.#enterArgAddress;
      argumentBytes = 24n;
    }
    for (;;) {
      const result = this.#enter(
        SYS_IO_URING_ENTER,
        this.fd,
        this.#pending,
        waitFor,
        flags,
        argument,
        argumentBytes,
      );
      // What the kernel took shows in its head, also when the wait itself was interrupted.
      this.#pending = (this.#sqTail - Atomics.load(this.#sqHeadShared, 0)) >>> 0;
      if (result >= 0) {
        if (this.#pending === 0 || this.hasArrived) return;
        continue;
      }
      const code = errno();
      if (code === ETIME || code === EINTR || code === EAGAIN || code === EBUSY) return;
      throw new BrokenInvariant(`io_uring_enter: errno ${code}`);
    }
  }

  get hasArrived(): boolean {
    return this.#cqHead !== Atomics.load(this.#cqTailShared, 0);
  }

  reap(): number {
    const cqe = this.#cqe, mask = this.#cqMask, handlers = this.#handlers;
    let head = this.#cqHead, count = 0;
    const tail = Atomics.load(this.#cqTailShared, 0);
    while (head !== tail) {
      const i = (head & mask) * 4;
      const index = cqe[i] as number, kind = cqe[i + 1] as number;
      const result = cqe[i + 2] as number, flags = cqe[i + 3] as number;
      head = (head + 1) >>> 0;
      // Published one by one: a handler may push and submit, which needs the room.
      this.#cqHead = head;
      Atomics.store(this.#cqHeadShared, 0, head);
      (handlers[kind] as CompletionHandler)(index, result, flags);
      count++;
    }
    return count;
  }

  close(): void {
    libc().close(this.fd);
    unmapMemory(this.#ring);
    unmapMemory(this.#sqes);
    unmapMemory(this.#enterArg);
  }
}

/** The handler of kinds that nobody has. */
const stray: CompletionHandler = () => {
  throw new BrokenInvariant("a completion came for a kind that was given back");
};

/** True while a multishot operation will send more completions. */
export function hasMore(flags: number): boolean {
  return (flags & CQE.more) !== 0;
}

/** Tries the fastest flags first and drops what an older kernel does not know. */
function setUp(options: RingOptions, params: Uint32Array): number {
  const base = SETUP.cqSize;
  const attempts = [
    base | SETUP.singleIssuer | SETUP.deferTaskrun,
    base | SETUP.singleIssuer,
    base,
  ];
  let code = 0;
  for (const flags of attempts) {
    params.fill(0);
    params[PARAMS_U32.cqEntries] = options.entries * 4;
    params[PARAMS_U32.flags] = flags;
    const fd = Number(
      libc().syscall2(
        SYS_IO_URING_SETUP,
        BigInt(options.entries),
        new Uint8Array(params.buffer as ArrayBuffer),
      ),
    );
    if (fd >= 0) return fd;
    code = errno();
    if (code === ENOSYS || code === EPERM) break;
  }
  throw sysError("set up io_uring", code);
}
