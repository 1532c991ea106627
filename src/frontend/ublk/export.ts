/**
 * A volume as a block device of the kernel's ublk driver: its requests come as completions of commands that
 * wait on this thread's ring, one per tag, and each answer asks for the tag's next request.
 *
 * Hot path: no await, throw or allocation per request. A tag borrows a slot when it has a request and not
 * before (UBLK_F_USER_COPY): devices with many tags share one arena, and a buffer that a mirror still writes
 * from is nobody's until that write has ended. The price is one copying system call per read or write. Without
 * a free slot a tag waits here, which holds the application back; the wait ends after the batch that freed one.
 * A tag's slot is released before the tag is handed back, so a device's own next request finds it.
 *
 * A device may be larger than its volume, where the driver cannot resize a device in use: there it reads as
 * zeros, and takes no writes (ENOSPC) until the volume has grown.
 *
 * Faults: a killed process loses nothing, because the driver gives the requests in service to its successor;
 * a command that the driver refuses ends the export with an error, and the device then waits like one whose
 * server was killed; a stopped device hands every tag back (ENODEV).
 */
import { errnoText, PsmaError } from "../../core/mod.ts";
import {
  UBLK_IO,
  UBLK_OPERATION,
  UBLK_OPERATION_FLAG,
  ublkLength,
  ublkOperation,
  ublkOperationFlags,
  ublkStart,
} from "../../codec/mod.ts";
import { type Reactor, UblkQueue } from "../../sys/mod.ts";
import { OPERATION, OPERATION_FLAG, type Requests } from "../../volume/mod.ts";
import { type UblkTable, ublkTable } from "./table.ts";

const BEGUN_MS = 1;
const EIO = 5, EINVAL = 22, ENODEV = 19, EOPNOTSUPP = 95;

/** What an export needs of a volume. */
export interface UblkVolume {
  readonly name: string;
  readonly sizeBytes: number;
  submit(slot: number): void;
}

export interface UblkServe {
  readonly reactor: Reactor;
  readonly requests: Requests;
  readonly volume: UblkVolume;
  /** Number of a device that is added, or whose recovery has begun, and its tags. */
  readonly device: number;
  readonly depth: number;
  /** Called once when the driver refused a command: the device is not served any more. */
  readonly onEnd: (error: PsmaError) => void;
}

export class UblkExport {
  readonly device: number;
  readonly #volume: UblkVolume;
  readonly #requests: Requests;
  readonly #reactor: Reactor;
  readonly #table: UblkTable;
  readonly #queue: UblkQueue;
  readonly #onEnd: (error: PsmaError) => void;
  readonly #index: number;
  /** Tags with a request and without a slot, oldest first: a ring of `depth` places. */
  readonly #waiting: Uint16Array;
  #waitingFirst = 0;
  #waitingCount = 0;
  /** Tags that the driver or we still have in hand. */
  #live: number;
  #failure: PsmaError | undefined;
  #abandoned = false;
  #drained: (() => void) | undefined;

  private constructor(options: UblkServe) {
    const { reactor, requests, device, depth } = options;
    this.device = device;
    this.#volume = options.volume;
    this.#requests = requests;
    this.#reactor = reactor;
    this.#onEnd = options.onEnd;
    this.#table = ublkTable(reactor, requests);
    this.#queue = new UblkQueue(device, depth);
    this.#waiting = new Uint16Array(depth);
    this.#live = depth;
    this.#index = this.#table.add(this);
    for (let tag = 0; tag < depth; tag++) this.#command(UBLK_IO.fetch, tag, 0);
  }

  /**
   * Begins to serve. The device takes requests once it is started, or its recovery has ended, which another
   * process asks for: whoever waits for a device on this thread waits for itself.
   * @throws {PsmaError} sys/permission, sys/errno-16 while another process serves it, sys/errno-N.
   */
  static serve(options: UblkServe): UblkExport {
    return new UblkExport(options);
  }

  /**
   * Waits until the driver has seen the commands that begin the service.
   * @throws {PsmaError} io/ublk when it refused one: then nobody must wait for the device to start.
   */
  async begun(): Promise<void> {
    await this.#reactor.sleep(BEGUN_MS);
    if (this.#failure) throw this.#failure;
  }

  /**
   * Closes our end of a device that has been stopped, after the driver has handed back every tag; then it can
   * be deleted.
   */
  async close(): Promise<void> {
    if (this.#live > 0) {
      const { promise, resolve } = this.#reactor.deferred<void>();
      this.#drained = () => resolve();
      await promise;
    }
    this.#table.remove(this.#index);
    this.#queue.close();
  }

  /**
   * Answers nothing from here on: what is in service and what comes waits for the next process. For a process
   * that ends while its device goes on.
   */
  abandon(): void {
    this.#abandoned = true;
  }

  onTag(tag: number, result: number): void {
    if (result !== 0) return this.#tagLost(result);
    if (this.#waitingCount > 0 || !this.#serve(tag)) this.#wait(tag);
  }

  #wait(tag: number): void {
    const waiting = this.#waiting;
    waiting[(this.#waitingFirst + this.#waitingCount) % waiting.length] = tag;
    this.#waitingCount++;
  }

  serveWaiting(): void {
    const waiting = this.#waiting;
    while (this.#waitingCount > 0 && this.#serve(waiting[this.#waitingFirst] as number)) {
      this.#waitingFirst = (this.#waitingFirst + 1) % waiting.length;
      this.#waitingCount--;
    }
  }

  /** @returns whether there was a slot for it. */
  #serve(tag: number): boolean {
    if (this.#abandoned) return true;
    const requests = this.#requests;
    const slot = requests.take(this.#table.owner);
    if (slot < 0) return false;
    requests.session[slot] = this.#index;
    requests.cookieLow[slot] = tag;
    const words = this.#queue.descriptors;
    const at = ublkStart(words, tag), length = ublkLength(words, tag);
    const flags = ublkOperationFlags(words, tag);
    const fua = (flags & UBLK_OPERATION_FLAG.fua) !== 0 ? OPERATION_FLAG.fua : 0;
    switch (ublkOperation(words, tag)) {
      case UBLK_OPERATION.read:
        this.#read(slot, tag, at, length);
        return true;
      case UBLK_OPERATION.write:
        this.#write(slot, tag, at, length, fua);
        return true;
      case UBLK_OPERATION.flush:
        this.#submit(slot, OPERATION.flush, 0, 0, 0);
        return true;
      case UBLK_OPERATION.discard:
        this.#submit(slot, OPERATION.trim, at, length, fua);
        return true;
      case UBLK_OPERATION.writeZeroes: {
        const keep = (flags & UBLK_OPERATION_FLAG.noUnmap) !== 0 ? OPERATION_FLAG.noHole : 0;
        this.#submit(slot, OPERATION.writeZeroes, at, length, fua | keep);
        return true;
      }
      default:
        this.#answer(slot, tag, -EOPNOTSUPP);
        return true;
    }
  }

  #read(slot: number, tag: number, at: number, length: number): void {
    const requests = this.#requests;
    if (length > requests.maxIo) return this.#answer(slot, tag, -EINVAL);
    const held = Math.min(length, Math.max(0, this.#volume.sizeBytes - at));
    if (held < length) {
      const from = requests.dataOffset(slot);
      requests.arena.bytes.fill(0, from + held, from + length);
    }
    if (held === 0) this.#answerRead(slot, tag);
    else this.#submit(slot, OPERATION.read, at, held, 0);
  }

  #write(slot: number, tag: number, at: number, length: number, flags: number): void {
    if (length > this.#requests.maxIo) return this.#answer(slot, tag, -EINVAL);
    const address = this.#table.addresses[slot] as bigint;
    if (this.#queue.copyOut(tag, address, length) !== length) return this.#answer(slot, tag, -EIO);
    this.#submit(slot, OPERATION.write, at, length, flags);
  }

  #submit(slot: number, code: number, at: number, length: number, flags: number): void {
    this.#requests.describe(slot, code, at, length, flags);
    this.#volume.submit(slot);
  }

  /** The volume is done with a request of ours. */
  onComplete(slot: number): void {
    const requests = this.#requests;
    const tag = requests.cookieLow[slot] as number, failure = requests.errno[slot] as number;
    const code = requests.code[slot] as number;
    if (failure !== 0) this.#answer(slot, tag, -failure);
    else if (code === OPERATION.read) this.#answerRead(slot, tag);
    else if (code === OPERATION.write) this.#answer(slot, tag, requests.length[slot] as number);
    else this.#answer(slot, tag, 0);
  }

  /** The whole of what was asked for, of which the volume may have held less. */
  #answerRead(slot: number, tag: number): void {
    const length = ublkLength(this.#queue.descriptors, tag);
    const copied = this.#queue.copyIn(tag, this.#table.addresses[slot] as bigint, length);
    this.#answer(slot, tag, copied === length ? length : -EIO);
  }

  #answer(slot: number, tag: number, result: number): void {
    this.#requests.release(slot);
    if (!this.#abandoned) this.#command(UBLK_IO.commitAndFetch, tag, result);
  }

  /** One queue, number 0: a tag is the upper half of the command's first word. */
  #command(command: number, tag: number, result: number): void {
    const index = this.#table.indexOf(this.#index, tag);
    const { kind } = this.#table;
    this.#reactor.ring.driverCommand(this.#queue.fd, command, tag << 16, result, kind, index);
  }

  #tagLost(result: number): void {
    this.#live--;
    if (result !== -ENODEV && !this.#failure) {
      this.#failure = new PsmaError(
        "io/ublk",
        `Cannot serve ${this.#volume.name} as ublk device ${this.device}: ` +
          `the driver refused a command: ${errnoText(result)}`,
        { hint: "Its users wait. Restart psma: it takes the device over." },
      );
      this.#onEnd(this.#failure);
    }
    if (this.#live > 0) return;
    const drained = this.#drained;
    this.#drained = undefined;
    drained?.();
  }
}
