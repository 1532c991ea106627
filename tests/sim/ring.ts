/**
 * The ring of a virtual machine: operations take virtual time, complete in any order and meet the weather of
 * disk and network. Waiting for completions is what lets virtual time pass.
 *
 * The process that owns the ring may be killed before any submit and before any completion is handled; what it
 * had handed over then happens in whole, in part or not at all.
 */
import type { CompletionHandler, Ring } from "../../src/sys/mod.ts";
import { RWF_DSYNC } from "../../src/codec/mod.ts";
import type { VirtualDisk, VirtualFile } from "./disk.ts";
import { textOf, type VirtualKernel } from "./kernel.ts";
import type { World } from "./world.ts";

const EBADF = 9, ECANCELED = 125, ETIME = 62, ENOENT = 2;
const SUBMIT_MS = 0.002;
const TWO_32 = 4294967296;

/** Thrown through the reactor of a process that was killed. */
export class Killed extends Error {
  override readonly name = "Killed";
}

/** An operation that the kernel works on. */
interface InFlight {
  /** What a crash may leave of it; undefined where that is nothing. */
  readonly tear: (() => void) | undefined;
  cancelled: boolean;
}

interface Timer {
  readonly kind: number;
  readonly index: number;
  cancelled: boolean;
}

/** Says whether the process dies here. */
export type CrashPoint = () => boolean;

export class VirtualRing implements Ring {
  /** The process was killed: nothing of it happens any more. */
  dead = false;
  readonly #handlers: (CompletionHandler | undefined)[] = [];
  readonly #freeKinds: number[] = [];
  #pushed: (() => void)[] = [];
  readonly #arrived: { kind: number; index: number; result: number }[] = [];
  readonly #inFlight = new Set<InFlight>();
  readonly #timers = new Set<Timer>();

  constructor(
    readonly world: World,
    readonly kernel: VirtualKernel,
    readonly crashPoint: CrashPoint,
  ) {}

  get disk(): VirtualDisk {
    return this.kernel.disk;
  }

  register(handler: CompletionHandler): number {
    const kind = this.#freeKinds.shift() ?? this.#handlers.length;
    this.#handlers[kind] = handler;
    return kind;
  }

  unregister(kind: number): void {
    this.#handlers[kind] = undefined;
    this.#freeKinds.push(kind);
  }

  get pending(): number {
    return this.#pushed.length;
  }

  get hasArrived(): boolean {
    return this.#arrived.length > 0;
  }

  submit(waitFor: number, timeoutMs: number): void {
    this.#mayDie();
    const { world } = this;
    world.pass(SUBMIT_MS);
    for (const start of this.#pushed.splice(0)) start();
    let untilMs = timeoutMs > 0 ? world.nowMs + timeoutMs : Infinity;
    if (waitFor === 0) untilMs = world.nowMs;
    while ((waitFor === 0 || this.#arrived.length < waitFor) && world.step(untilMs)) {
      if (this.dead) throw new Killed();
    }
  }

  reap(): number {
    let count = 0;
    for (let next = this.#arrived.shift(); next; next = this.#arrived.shift()) {
      this.#mayDie();
      const handler = this.#handlers[next.kind];
      if (!handler) throw new Error("a completion came for a kind that was given back");
      handler(next.index, next.result, 0);
      count++;
      if (this.dead) throw new Killed();
    }
    return count;
  }

  #mayDie() {
    if (this.world.failure !== undefined) throw this.world.failure;
    if (!this.dead && this.crashPoint()) this.kill();
    if (this.dead) throw new Killed();
  }

  /** The process ends here and now. */
  kill(): void {
    if (this.dead) return;
    this.dead = true;
    this.#pushed = [];
    this.#arrived.length = 0;
    for (const operation of this.#inFlight) {
      operation.cancelled = true;
      operation.tear?.();
    }
    this.#inFlight.clear();
    for (const timer of this.#timers) timer.cancelled = true;
    this.kernel.endProcess();
  }

  /** A completion that something else than an operation of this ring causes. */
  post(kind: number, index: number, result: number): void {
    if (!this.dead) this.#arrived.push({ kind, index, result });
  }

  #push(start: () => void) {
    if (!this.dead) this.#pushed.push(start);
  }

  /** An operation of the disk: it takes effect when it completes. */
  #operate(kind: number, index: number, run: () => number, tear?: () => void) {
    const operation: InFlight = { tear, cancelled: false };
    this.#inFlight.add(operation);
    this.world.after(this.disk.delay(), () => {
      if (operation.cancelled) return;
      this.#inFlight.delete(operation);
      this.#complete(kind, index, run());
    });
  }

  #complete(kind: number, index: number, result: number) {
    this.post(kind, index, result);
  }

  #onFile(fd: number, kind: number, index: number, use: (file: VirtualFile) => void) {
    this.#push(() => {
      const descriptor = this.kernel.descriptor(fd);
      if (descriptor?.kind === "file") use(descriptor.file);
      else this.#complete(kind, index, -EBADF);
    });
  }

  read(fd: number, at: number, address: number, length: number, kind: number, index: number): void {
    this.#onFile(fd, kind, index, (file) => {
      const into = this.kernel.bytesAt(address, length);
      this.#operate(kind, index, () => this.disk.read(file, at, into));
    });
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
    this.#onFile(fd, kind, index, (file) => {
      const from = this.kernel.bytesAt(address, length);
      const isDurable = (rwFlags & RWF_DSYNC) !== 0;
      this.#operate(
        kind,
        index,
        () => this.disk.write(file, at, from, isDurable),
        () => this.disk.tear(file, at, from),
      );
    });
  }

  fsync(fd: number, _flags: number, kind: number, index: number): void {
    this.#push(() => {
      const descriptor = this.kernel.descriptor(fd);
      if (descriptor?.kind === "file") {
        this.#operate(kind, index, this.disk.beginSync(descriptor.file));
      } else if (descriptor?.kind === "directory") {
        this.#operate(kind, index, this.disk.beginSyncNames());
      } else this.#complete(kind, index, -EBADF);
    });
  }

  fallocate(
    fd: number,
    _mode: number,
    at: number,
    length: number,
    kind: number,
    index: number,
  ): void {
    this.#onFile(fd, kind, index, (file) => {
      this.#operate(
        kind,
        index,
        () => this.disk.zero(file, at, length),
        () => this.disk.tear(file, at, new Uint8Array(length)),
      );
    });
  }

  openat(path: number, flags: number, _mode: number, kind: number, index: number): void {
    this.#push(() => {
      const name = textOf(this.kernel.bytesAt(path, 4096));
      this.#operate(kind, index, () => this.kernel.openPath(name, flags));
    });
  }

  renameat(from: number, to: number, kind: number, index: number): void {
    this.#push(() => {
      const old = textOf(this.kernel.bytesAt(from, 4096));
      const name = textOf(this.kernel.bytesAt(to, 4096));
      const rename = () => this.disk.rename(old, name);
      this.#operate(kind, index, rename, () => this.world.chance(0.5) && rename());
    });
  }

  unlinkat(path: number, kind: number, index: number): void {
    this.#push(() => {
      const name = textOf(this.kernel.bytesAt(path, 4096));
      const remove = () => this.disk.remove(name) ? 0 : -ENOENT;
      this.#operate(kind, index, remove, () => this.world.chance(0.5) && remove());
    });
  }

  recv(
    fd: number,
    address: number,
    length: number,
    all: boolean,
    kind: number,
    index: number,
  ): void {
    this.#push(() => {
      const descriptor = this.kernel.descriptor(fd);
      if (descriptor?.kind !== "socket") return this.#complete(kind, index, -EBADF);
      const into = this.kernel.bytesAt(address, length);
      descriptor.socket.receive(into, all, (result) => this.#complete(kind, index, result));
    });
  }

  send(fd: number, address: number, length: number, kind: number, index: number): void {
    this.#push(() => this.#transmit(fd, [this.kernel.bytesAt(address, length)], kind, index));
  }

  sendmsg(fd: number, msghdrAddress: number, kind: number, index: number): void {
    this.#push(() => {
      const header = this.kernel.bytesAt(msghdrAddress, 64);
      const words = new Uint32Array(header.buffer, header.byteOffset, 16);
      const iov = (words[4] as number) + (words[5] as number) * TWO_32;
      const count = words[6] as number;
      const pieces: Uint8Array[] = [];
      for (let i = 0; i < count; i++) {
        const entry = this.kernel.bytesAt(iov + i * 16, 16);
        const [low, high, length] = new Uint32Array(entry.buffer, entry.byteOffset, 4);
        const address = (low as number) + (high as number) * TWO_32;
        pieces.push(this.kernel.bytesAt(address, length as number));
      }
      this.#transmit(fd, pieces, kind, index);
    });
  }

  #transmit(fd: number, pieces: readonly Uint8Array[], kind: number, index: number) {
    const descriptor = this.kernel.descriptor(fd);
    if (descriptor?.kind !== "socket") return this.#complete(kind, index, -EBADF);
    const bytes = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
    let at = 0;
    for (const piece of pieces) {
      bytes.set(piece, at);
      at += piece.length;
    }
    this.#complete(kind, index, descriptor.socket.send(bytes));
  }

  connect(fd: number, _sockaddr: number, _length: number, kind: number, index: number): void {
    this.#push(() => {
      const descriptor = this.kernel.descriptor(fd);
      if (descriptor?.kind !== "socket") return this.#complete(kind, index, -EBADF);
      descriptor.socket.connect((result) => this.#complete(kind, index, result));
    });
  }

  cancelFd(fd: number, kind: number, index: number): void {
    this.#push(() => {
      const descriptor = this.kernel.descriptor(fd);
      if (descriptor?.kind === "socket") descriptor.socket.cancel();
      this.#complete(kind, index, 0);
    });
  }

  nop(kind: number, index: number): void {
    this.#push(() => this.#complete(kind, index, 0));
  }

  timeout(timespecAddress: number, kind: number, index: number): void {
    this.#push(() => {
      const bytes = this.kernel.bytesAt(timespecAddress, 16);
      const [seconds, nanos] = new BigInt64Array(bytes.buffer, bytes.byteOffset, 2);
      const timer: Timer = { kind, index, cancelled: false };
      this.#timers.add(timer);
      this.world.after(Number(seconds) * 1000 + Number(nanos) / 1e6, () => {
        if (timer.cancelled) return;
        this.#timers.delete(timer);
        this.#complete(kind, index, -ETIME);
      });
    });
  }

  cancelTimeout(ofKind: number, ofIndex: number, kind: number, index: number): void {
    this.#push(() => {
      const timer = [...this.#timers].find((one) => one.kind === ofKind && one.index === ofIndex);
      if (!timer) return this.#complete(kind, index, -ENOENT);
      timer.cancelled = true;
      this.#timers.delete(timer);
      this.#complete(ofKind, ofIndex, -ECANCELED);
      this.#complete(kind, index, 0);
    });
  }

  accept(): void {
    throw new Error("nobody connects to a simulated agent");
  }

  pollMultishot(): void {
    throw new Error("a simulated agent has no drivers");
  }

  poll(): void {
    throw new Error("a simulated agent has no child processes");
  }

  driverCommand(): void {
    throw new Error("a simulated agent has no drivers");
  }

  close(): void {}
}
