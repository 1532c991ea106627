/**
 * The event loop of a thread that lives in its ring: submit, wait, reap, run hooks, and give promises
 * that completions resolved their turn. Nothing else of the runtime's own event loop runs on this thread.
 *
 * JavaScript has no call that says "run all microtasks now". A turn (`await null`) runs those queued
 * before it, so after a batch that settled a promise the loop takes TURNS of them, then waits at most
 * GRACE_MS for a few rounds before it dares to sleep without a limit. Async code here therefore may chain
 * at most TURNS awaits without an operation of the ring in between; a longer chain is only delayed, by
 * the grace rounds, never lost as long as it ends within them.
 */
import { type Clock, type Deferred, systemClock, type Turns } from "../core/mod.ts";
import { FSYNC_DATASYNC } from "../codec/mod.ts";
import { libc, sysError } from "./libc.ts";
import { allocateMemory, type Memory, unmapMemory } from "./memory.ts";
import type { Ring } from "./ring.ts";
import { cString, errno } from "./libc.ts";

const TURNS = 64;
const GRACE_ROUNDS = 4;
const GRACE_MS = 2;
const EFD_CLOEXEC = 0o2000000;
const POLLIN = 1;
const O_RDONLY = 0,
  O_DIRECTORY = Deno.build.arch === "aarch64" ? 0o40000 : 0o200000,
  O_CLOEXEC = 0o2000000;
const O_WRONLY_CREATE_TRUNCATE = 0o1101;
const MAX_WAITERS = 4096;
const ENOENT = 2, EINTR = 4, EAGAIN = 11, ATTEMPTS = 20;
const SMALL_BYTES = 4096, SMALL_MAX = 64;
/** See `#arrivesSoon`. */
const LOOK_MS = 0.05, LOOK_AFTER_MOST = 2, LOOK_AGAIN_AFTER = 64, LOOK_CREDIT_MAX = 16;

interface Waiter {
  resolve: ((result: number) => void) | undefined;
  /** Keeps the memory of an operation alive until the kernel is done with it. */
  held: unknown;
}

/** A sleep that may be ended early. */
export interface Alarm {
  /** Resolves when it rings, or when it was cancelled. */
  readonly over: Promise<void>;
  /** Ends it now; nothing when it is over. */
  cancel(): void;
}

export class Reactor implements Turns {
  /** Called after every batch of completions, before the ring is submitted. Hot path. */
  readonly afterBatch: (() => void)[] = [];
  /** Set by who has work for a hook: hooks then run (again) before the thread sleeps. Hot path. */
  hooksWanted = false;
  /** Waits for the kernel, and long calls into it, so far: between two of them time need not be read twice. */
  batches = 0;
  readonly #waiters: Waiter[] = [];
  readonly #freeWaiters: number[] = [];
  /** Memory of SMALL_BYTES that nobody uses now. */
  readonly #small: Memory[] = [];
  readonly #kind: number;
  readonly #unheardKind: number;
  #grace = 0;
  /** Completions of the last batch. */
  #reaped = 0;
  #lookCredit = 0;
  #looksLeftOut = 0;
  #settled = false;
  #running = false;

  /** @param clock what a look for the next completion is timed by. */
  constructor(
    readonly ring: Ring,
    readonly clock: Pick<Clock, "monotonicMs"> = systemClock,
  ) {
    this.#kind = ring.register((index, result) => this.#settle(index, result));
    this.#unheardKind = ring.register(() => {});
  }

  /** Runs until `stop()`. */
  async run(): Promise<void> {
    this.#running = true;
    this.wake();
    while (this.#running) {
      if (this.#settled) {
        this.#settled = false;
        this.#grace = GRACE_ROUNDS;
        for (let turn = 0; turn < TURNS; turn++) await null;
        this.#runHooks();
        if (!this.#running) break;
      } else if (this.#grace > 0) {
        this.#grace--;
        for (let turn = 0; turn < TURNS; turn++) await null;
        this.#runHooks();
      }
      if (this.#settled || !this.#arrivesSoon()) {
        this.ring.submit(this.#settled ? 0 : 1, this.#grace > 0 ? GRACE_MS : 0);
      }
      this.batches++;
      this.#reaped = this.ring.reap();
      this.#runHooks();
    }
  }

  /**
   * Looks for the next completion for a moment before the thread sleeps. One client with one request at a time
   * answers a reply with its next request sooner than a sleeping thread can be woken. Only while that comes true:
   * looks in vain are paid for by later ones. Nothing is looked for after a longer pause, so idling costs nothing.
   * @returns whether something has arrived; what was pushed has been submitted then.
   */
  #arrivesSoon(): boolean {
    if (this.#reaped === 0 || this.#reaped > LOOK_AFTER_MOST) return false;
    if (this.#lookCredit <= 0 && ++this.#looksLeftOut % LOOK_AGAIN_AFTER !== 0) return false;
    const until = this.clock.monotonicMs() + LOOK_MS;
    do {
      this.ring.submit(0, 0);
      if (this.ring.hasArrived) {
        this.#lookCredit = Math.min(LOOK_CREDIT_MAX, this.#lookCredit + 1);
        return true;
      }
    } while (this.clock.monotonicMs() < until);
    this.#lookCredit -= 2;
    return false;
  }

  /** A hook may complete requests that an earlier hook has to answer: nobody may sleep on those. */
  #runHooks() {
    do {
      this.hooksWanted = false;
      for (const hook of this.afterBatch) hook();
    } while (this.hooksWanted);
  }

  stop(): void {
    this.#running = false;
    this.wake();
  }

  /** Says that async code has something to do: call it after resolving a promise by hand. */
  wake(): void {
    this.#settled = true;
  }

  /** A promise with its resolver, which wakes the loop when it is resolved. */
  deferred<T>(): Deferred<T> {
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    return {
      promise,
      resolve: (value) => {
        this.wake();
        resolve(value);
      },
      reject: (error) => {
        this.wake();
        reject(error);
      },
    };
  }

  /** @returns bytes read, or a negative errno. */
  read(fd: number, at: number, memory: Memory, length = memory.bytes.length): Promise<number> {
    return this.#wait(memory, (i) => this.ring.read(fd, at, memory.address, length, this.#kind, i));
  }

  /** @param rwFlags RWF_DSYNC: durable when it resolves. @returns bytes written, or a negative errno. */
  write(
    fd: number,
    at: number,
    memory: Memory,
    length = memory.bytes.length,
    rwFlags = 0,
  ): Promise<number> {
    return this.#wait(
      memory,
      (i) => this.ring.write(fd, at, memory.address, length, rwFlags, this.#kind, i),
    );
  }

  fsync(fd: number, dataOnly = false): Promise<number> {
    return this.#wait(
      null,
      (i) => this.ring.fsync(fd, dataOnly ? FSYNC_DATASYNC : 0, this.#kind, i),
    );
  }

  recv(fd: number, memory: Memory, length: number, offset = 0): Promise<number> {
    return this.#wait(
      memory,
      (i) => this.ring.recv(fd, memory.address + offset, length, true, this.#kind, i),
    );
  }

  send(fd: number, memory: Memory, length: number): Promise<number> {
    return this.#wait(memory, (i) => this.ring.send(fd, memory.address, length, this.#kind, i));
  }

  async connect(fd: number, sockaddr: Uint8Array): Promise<number> {
    const memory = this.#copyOut(sockaddr);
    const result = await this.#wait(
      memory,
      (i) => this.ring.connect(fd, memory.address, sockaddr.length, this.#kind, i),
    );
    this.#release(memory);
    return result;
  }

  /** Cancels everything in flight on a descriptor; resolves when the kernel has seen to it. */
  cancelFd(fd: number): Promise<number> {
    return this.#wait(null, (i) => this.ring.cancelFd(fd, this.#kind, i));
  }

  /** Resolves when there is something to read; for a process's descriptor: when it has ended. */
  readable(fd: number): Promise<number> {
    return this.#wait(null, (i) => this.ring.poll(fd, POLLIN, this.#kind, i));
  }

  /** Resolves after `ms`, in this thread's own time; 0: after the requests that have arrived, without a pause. */
  async sleep(ms: number): Promise<void> {
    if (ms > 0) return await this.alarm(ms).over;
    await this.#wait(null, (i) => this.ring.nop(this.#kind, i));
  }

  /** Rings after `ms`, in this thread's own time, or when it is cancelled. */
  alarm(ms: number): Alarm {
    const { promise, resolve } = Promise.withResolvers<void>();
    const timespec = this.#copyOut(timespecBytes(ms));
    let index = this.#hold(timespec, () => {
      index = -1;
      this.#release(timespec);
      resolve();
    });
    this.ring.timeout(timespec.address, this.#kind, index);
    return {
      over: promise,
      cancel: () => {
        if (index >= 0) this.ring.cancelTimeout(this.#kind, index, this.#unheardKind, 0);
      },
    };
  }

  /**
   * Replaces a file durably: write beside it, fsync, rename over it, fsync the directory.
   * A crash leaves the old bytes or the new ones, never a mixture.
   * @throws {PsmaError} sys/... when a step fails; the old file then still stands unless the last step failed.
   */
  async replaceFile(path: string, bytes: Uint8Array): Promise<void> {
    const temporary = `${path}.tmp`;
    const check = (doing: string, result: number) => {
      if (result < 0) throw sysError(`${doing} ${path}`, result);
      return result;
    };
    const fd = check("create", await this.#open(temporary, O_WRONLY_CREATE_TRUNCATE, 0o600));
    const memory = this.#copyOut(bytes);
    try {
      let written = 0;
      while (written < bytes.length) {
        const part = { address: memory.address + written, bytes: memory.bytes.subarray(written) };
        const left = bytes.length - written;
        written += check(
          "write",
          await this.#untilTaken(() => this.write(fd, written, part, left)),
        );
      }
      check("sync", await this.#untilTaken(() => this.fsync(fd)));
    } finally {
      this.#release(memory);
      libc().close(fd);
    }
    const from = this.#copyOut(cString(temporary)), to = this.#copyOut(cString(path));
    const renamed = await this.#untilTaken(() =>
      this.#wait(
        [from, to],
        (i) => this.ring.renameat(from.address, to.address, this.#kind, i),
      )
    );
    this.#release(from);
    this.#release(to);
    check("rename", renamed);
    await this.syncDirectory(path.replace(/\/[^/]*$/, "") || "/");
  }

  /** Removes a file's name; its blocks are freed by another thread. What is not there is no error. @throws {PsmaError} sys/... */
  async removeFile(path: string): Promise<void> {
    const memory = this.#copyOut(cString(path));
    const result = await this.#untilTaken(() =>
      this.#wait(memory, (i) => this.ring.unlinkat(memory.address, this.#kind, i))
    );
    this.#release(memory);
    if (result < 0 && result !== -ENOENT) throw sysError(`remove ${path}`, result);
  }

  async syncDirectory(path: string): Promise<void> {
    const fd = await this.#open(path, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0) throw sysError(`open ${path}`, fd);
    try {
      const result = await this.#untilTaken(() => this.fsync(fd));
      if (result < 0) throw sysError(`sync ${path}`, result);
    } finally {
      libc().close(fd);
    }
  }

  /** The kernel may ask for the same once more: it has done nothing then. */
  async #untilTaken(attempt: () => Promise<number>): Promise<number> {
    for (let tries = 1;; tries++) {
      const result = await attempt();
      if ((result !== -EINTR && result !== -EAGAIN) || tries === ATTEMPTS) return result;
      await this.sleep(tries);
    }
  }

  async #open(path: string, flags: number, mode: number): Promise<number> {
    const memory = this.#copyOut(cString(path));
    const fd = await this.#untilTaken(() =>
      this.#wait(
        memory,
        (i) => this.ring.openat(memory.address, flags | O_CLOEXEC, mode, this.#kind, i),
      )
    );
    this.#release(memory);
    return fd;
  }

  /** Bytes at a fixed address, for the kernel to read. Small ones are re-used by `#release`. */
  #copyOut(bytes: Uint8Array): Memory {
    const memory = bytes.length <= SMALL_BYTES
      ? this.#small.pop() ?? allocateMemory(SMALL_BYTES)
      : allocateMemory(bytes.length);
    memory.bytes.set(bytes);
    return memory;
  }

  #release(memory: Memory) {
    if (memory.bytes.length === SMALL_BYTES && this.#small.length < SMALL_MAX) {
      this.#small.push(memory);
    } else unmapMemory(memory);
  }

  #wait(held: unknown, push: (index: number) => void): Promise<number> {
    return new Promise((resolve) => push(this.#hold(held, resolve)));
  }

  /** @returns the index to push an operation with; its completion calls `resolve`. */
  #hold(held: unknown, resolve: (result: number) => void): number {
    const index = this.#freeWaiters.pop() ?? this.#waiters.length;
    if (index >= MAX_WAITERS) throw sysError("wait for one more operation", 11);
    this.#waiters[index] = { resolve, held };
    return index;
  }

  #settle(index: number, result: number) {
    const waiter = this.#waiters[index] as Waiter;
    const resolve = waiter.resolve;
    waiter.resolve = undefined;
    waiter.held = undefined;
    this.#freeWaiters.push(index);
    this.#settled = true;
    resolve?.(result);
  }
}

/** An eventfd: another thread adds to it to wake a ring that has a READ queued on it. */
export function createEventFd(): number {
  const fd = libc().eventfd(0, EFD_CLOEXEC);
  if (fd < 0) throw sysError("create an eventfd", errno());
  return fd;
}

const ONE = new Uint8Array(new BigUint64Array([1n]).buffer);

/** Adds one to an eventfd's counter, which ends the reads that wait for it. */
export function signalEventFd(fd: number): void {
  libc().write(fd, ONE, 8n);
}

/** `struct __kernel_timespec` for a duration. */
export function timespecBytes(ms: number): Uint8Array {
  const fields = new BigInt64Array(2);
  fields[0] = BigInt(Math.floor(ms / 1000));
  fields[1] = BigInt(Math.floor((ms % 1000) * 1e6));
  return new Uint8Array(fields.buffer);
}
