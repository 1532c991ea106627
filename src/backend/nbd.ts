/**
 * A backend on an NBD server: many requests in flight on one connection, which is made anew when it is lost.
 *
 * Faults: when the connection is lost, `hold` keeps every operation without an answer and sends it again,
 * in order, after a reconnect; `fail` completes them with EIO as soon as the kernel is done with their
 * memory, and those that come until the reconnect at once. Both reconnect with growing pauses, for ever.
 * A server that fences us out is final: everything fails, and nothing is tried again.
 * Not promised: what was written and not flushed may be gone when the server itself died; `onLost` says so.
 * Nor can a client know when requests of a lost connection end in the server: one that runs late there could
 * land after a newer write. PSMA's fenced server lets a writer in only when those before it have drained.
 *
 * What a server cannot do is emulated: FUA by a flush afterwards, write-zeroes by writing zeros. Trim is
 * write-zeroes that may leave a hole, because NBD's own trim promises nothing of what is read later. An operation larger than the server's limit goes in pieces, one after the other.
 * Hot path: submit, the hook and the replies neither allocate, await nor throw.
 */
import { PsmaError, toPsmaError } from "../core/mod.ts";
import { NBD_ERROR, NBD_FLAG, nbdErrorOf } from "../codec/mod.ts";
import { closeFile, type Reactor } from "../sys/mod.ts";
import type { Backend, Extent, LossPolicy } from "./backend.ts";
import { BackendMeter } from "./meter.ts";
import { NbdConnection, type NbdConnectionEvents } from "./nbd_connection.ts";
import { type NbdConnected, NbdDialler, type NbdOffer, NO_OFFER } from "./nbd_handshake.ts";
import type { NbdBackendEvent, NbdBackendOptions } from "./nbd_options.ts";
import { can, isTooSlow, needsFlush, nextPiece, type Piece, STEP } from "./nbd_piece.ts";
import { OpList, OpQueue } from "./nbd_queue.ts";
import { parseNbdUri, targetText } from "./nbd_uri.ts";
import { OPERATION, OPERATION_FLAG, type Operations } from "./operations.ts";

const EIO = 5;
const BACKOFF_MS_MIN = 50, BACKOFF_MS_MAX = 2000, GROW_MS = 10_000, GOODBYE_MS = 1000;

/**
 * `up`: connected. `ending`: the connection is over, the kernel not yet done with it. `down`: being made
 * anew. `finished`: fenced out or closed, for good.
 */
type State = "up" | "ending" | "down" | "finished";

/**
 * Connects to an export; the loss policy is `hold` until it is set.
 * @throws {PsmaError} usage/nbd-uri, store/unreachable, store/nbd-protocol, not-found/export, fenced/epoch
 */
export async function openNbdBackend(options: NbdBackendOptions): Promise<NbdBackend> {
  const { uri, place, reactor } = options;
  const target = { ...parseNbdUri(uri), ...(place === undefined ? {} : { place }) };
  const dialler = new NbdDialler(reactor, target);
  try {
    return new NbdBackend(options, dialler, await dialler.enter());
  } catch (error) {
    const { code } = toPsmaError(error);
    // Whoever names a size waits for the server, and for the export: it is tried again like a lost one.
    if (options.expectedSizeBytes === undefined || code === "usage/nbd-uri") throw error;
    return new NbdBackend(options, dialler, options.expectedSizeBytes);
  }
}

export class NbdBackend implements Backend, NbdConnectionEvents {
  readonly description: string;
  readonly meter: BackendMeter = new BackendMeter();
  onLost: (() => void) | undefined = undefined;
  readonly #reactor: Reactor;
  readonly #operations: Operations;
  readonly #onEvent: (event: NbdBackendEvent) => void;
  readonly #dialler: NbdDialler;
  readonly #prober: NbdDialler;
  readonly #connection: NbdConnection;
  /** All operations without an answer, in order of submission. */
  readonly #waiting: OpList;
  /** Those of them whose next piece is to be sent. */
  readonly #ready: OpQueue;
  /** Per operation: a number for each piece sent, the piece's bytes, and whether its reply is awaited. */
  readonly #generation: Uint32Array;
  readonly #pieceBytes: Float64Array;
  readonly #sent: Uint8Array;
  readonly #piece: Piece = { type: 0, flags: 0, at: 0, length: 0, payload: 0 };
  #sentCount = 0;
  #offer: NbdOffer;
  #sizeBytes: number;
  #policy: LossPolicy = "hold";
  #state: State = "up";
  /** True while `grow` lets what is in flight end, to connect anew. */
  #renewing = false;
  #growing = false;
  #closing = false;
  #backoffMs = BACKOFF_MS_MIN;
  #changeWaiters: (() => void)[] = [];
  readonly #afterBatch = () => this.#pump();

  /** @param connected a connection, or the size to believe in until there is one. */
  constructor(
    options: NbdBackendOptions,
    dialler: NbdDialler,
    connected: NbdConnected | number,
  ) {
    const { reactor, operations } = options;
    this.description = `nbd ${targetText(dialler.target)}`;
    this.#reactor = reactor;
    this.#operations = operations;
    this.#onEvent = options.onEvent ?? (() => {});
    this.#dialler = dialler;
    this.#prober = new NbdDialler(reactor, dialler.target);
    const away = typeof connected === "number";
    this.#offer = away ? { ...NO_OFFER, sizeBytes: connected } : connected.offer;
    this.#sizeBytes = this.#offer.sizeBytes;
    this.#waiting = new OpList(operations.capacity);
    this.#ready = new OpQueue(operations.capacity);
    this.#generation = new Uint32Array(operations.capacity);
    this.#pieceBytes = new Float64Array(operations.capacity);
    this.#sent = new Uint8Array(operations.capacity);
    this.#connection = new NbdConnection(reactor.ring, operations.capacity, this);
    reactor.afterBatch.push(this.#afterBatch);
    if (away) {
      this.#state = "down";
      this.#reconnect();
    } else this.#connection.start(connected.fd);
  }

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  get connected(): boolean {
    return this.#state === "up";
  }

  /** The server takes no writes from us. */
  get readOnly(): boolean {
    return can(this.#offer, NBD_FLAG.readOnly);
  }

  submit(op: number): void {
    this.#operations.begin(op, this.meter);
    this.#operations.scratch[op] = STEP.itself;
    this.#sent[op] = 0;
    this.#waiting.append(op);
    if (this.#failsNow()) return this.#complete(op, EIO);
    this.#ready.push(op);
    this.#reactor.hooksWanted = true;
  }

  /** True when an operation cannot be sent and must not wait either. */
  #failsNow(): boolean {
    if (this.#state === "finished") return true;
    return this.#state !== "up" && !this.#renewing && this.#policy === "fail";
  }

  /** After a batch: what is ready leaves in one send. */
  #pump() {
    const connection = this.#connection, ready = this.#ready;
    if (this.#state !== "up" || this.#renewing || ready.length === 0) return;
    while (ready.length > 0 && connection.hasRoom) this.#sendPiece(ready.shift());
    connection.flush();
  }

  onRoom(): void {
    this.#reactor.hooksWanted = true;
    this.#connection.flush();
  }

  #sendPiece(op: number) {
    const piece = this.#piece;
    if (isTooSlow(this.#operations, op, this.#offer)) {
      return this.#complete(op, NBD_ERROR.notSupported);
    }
    nextPiece(this.#operations, op, this.#offer, piece);
    if (piece.type < 0) return this.#complete(op, 0);
    const generation = ((this.#generation[op] as number) + 1) >>> 0;
    this.#generation[op] = generation;
    this.#pieceBytes[op] = piece.length;
    this.#sent[op] = 1;
    this.#sentCount++;
    const { type, flags, at, length, payload } = piece;
    this.#connection.queue(type, flags, generation, op, at, length, payload);
  }

  payloadBytes(cookieHigh: number, cookieLow: number): number {
    if (cookieLow >= this.#operations.capacity || this.#sent[cookieLow] === 0) return -1;
    if (this.#generation[cookieLow] !== cookieHigh) return -1;
    return this.#operations.code[cookieLow] === OPERATION.read
      ? this.#pieceBytes[cookieLow] as number
      : 0;
  }

  payloadAddress(cookieLow: number): number {
    return (this.#operations.address[cookieLow] as number) +
      (this.#operations.progress[cookieLow] as number);
  }

  onReply(op: number, error: number): void {
    this.#sent[op] = 0;
    this.#sentCount--;
    this.#backoffMs = BACKOFF_MS_MIN;
    if (this.#renewing && this.#sentCount === 0) this.#changed();
    if (error !== 0) return this.#onError(op, nbdErrorOf(error));
    const operations = this.#operations;
    if (operations.scratch[op] === STEP.flushing || operations.code[op] === OPERATION.flush) {
      return this.#complete(op, 0);
    }
    const progress = (operations.progress[op] as number) + (this.#pieceBytes[op] as number);
    operations.progress[op] = progress;
    if (progress < (operations.length[op] as number)) return this.#again(op);
    if (!needsFlush(operations, op, this.#offer)) return this.#complete(op, 0);
    operations.scratch[op] = STEP.flushing;
    this.#again(op);
  }

  #again(op: number) {
    this.#ready.push(op);
    this.#reactor.hooksWanted = true;
  }

  #onError(op: number, errno: number) {
    const operations = this.#operations, code = operations.code[op] as number;
    const fastOnly = ((operations.flags[op] as number) & OPERATION_FLAG.fastZero) !== 0;
    const zeroing = code === OPERATION.trim || (code === OPERATION.writeZeroes && !fastOnly);
    if (zeroing && errno === NBD_ERROR.notSupported && operations.scratch[op] === STEP.itself) {
      operations.scratch[op] = STEP.writingZeros;
      return this.#again(op);
    }
    if (errno === NBD_ERROR.shutdown && this.#policy === "hold") {
      // It leaves, and will come back or not: the operation waits for that like the others.
      return this.#dropConnection("it is shutting down");
    }
    this.#complete(op, errno);
  }

  #complete(op: number, errno: number) {
    this.#waiting.remove(op);
    this.#operations.complete(op, errno);
    if (this.#waiting.length === 0) this.#changed();
  }

  /** Ends the connection from this side as if it had been lost. */
  #dropConnection(reason: string) {
    if (this.#state !== "up") return;
    this.#connection.end();
    this.connectionLost(reason);
  }

  connectionLost(reason: string): void {
    this.#state = "ending";
    if (this.#closing) return;
    this.#say("nbd.lost", "warning", `lost ${this.description}: ${reason}`);
    this.onLost?.();
  }

  /** The kernel is done with the connection: memory of operations is free again. */
  connectionEnded(): void {
    this.#sentCount = 0;
    this.#state = this.#closing ? "finished" : "down";
    if (this.#failsNow()) this.#failAll();
    this.#changed();
    if (!this.#closing) this.#reconnect();
  }

  #failAll() {
    this.#ready.clear();
    for (let left = this.#waiting.length; left > 0; left--) {
      this.#complete(this.#waiting.first, EIO);
    }
  }

  /** Tries until it is connected, closed or fenced out. Never rejects. */
  async #reconnect(): Promise<void> {
    while (this.#state === "down") {
      if (!this.#renewing) {
        await this.#reactor.sleep(this.#backoffMs);
        this.#backoffMs = Math.min(this.#backoffMs * 2, BACKOFF_MS_MAX);
        if (this.#state !== "down") return;
      }
      try {
        this.#resume(await this.#dialler.enter());
      } catch (error) {
        const failure = toPsmaError(error, "store/unreachable");
        if (failure.code === "fenced/epoch") return this.#finish(failure.message);
        // Tried again, quietly: that it was lost has been said.
        if (this.#renewing) await this.#reactor.sleep(BACKOFF_MS_MIN);
      }
    }
  }

  /** Goes on, on a new connection: everything without an answer is sent again, in order. */
  #resume(connected: NbdConnected) {
    const { fd, offer } = connected;
    if (this.#state !== "down" || offer.sizeBytes < this.#sizeBytes) {
      closeFile(fd);
      if (this.#state !== "down") return;
      this.#say("nbd.shrunk", "error", `${this.description} has only ${offer.sizeBytes} bytes now`);
      throw new PsmaError("store/shrunk", `Cannot use ${this.description}: it has shrunk`);
    }
    this.#offer = offer;
    this.#state = "up";
    this.#ready.clear();
    for (let op = this.#waiting.first; op >= 0; op = this.#waiting.after(op)) {
      this.#sent[op] = 0;
      this.#ready.push(op);
    }
    this.#connection.start(fd);
    this.#reactor.hooksWanted = true;
    if (!this.#renewing) this.#say("nbd.connected", "info", `${this.description} is back`);
    this.#changed();
  }

  #finish(reason: string) {
    this.#state = "finished";
    this.#say("nbd.fenced", "error", reason);
    this.#failAll();
    this.#changed();
  }

  setLossPolicy(policy: LossPolicy): void {
    this.#policy = policy;
    if (this.#state === "down" && this.#failsNow()) this.#failAll();
  }

  abort(): void {
    this.#dropConnection("it was given up");
  }

  dataExtents(from: number, length: number): Promise<readonly Extent[]> {
    return Promise.resolve(length > 0 ? [{ at: from, length }] : []);
  }

  allocatedBytes(): number | undefined {
    return undefined;
  }

  /**
   * Takes over growth that happened at the server, by a new connection; operations wait meanwhile.
   * @throws {PsmaError} state/cannot-grow when the export is smaller than asked for; store/unreachable
   */
  async grow(sizeBytes: number): Promise<void> {
    if (sizeBytes <= this.#sizeBytes) return;
    if (this.#growing) {
      throw new PsmaError("state/busy", `Cannot grow ${this.description}: it is growing already`);
    }
    this.#growing = true;
    try {
      const now = await this.#prober.ask();
      if (now.sizeBytes < sizeBytes) {
        throw new PsmaError(
          "state/cannot-grow",
          `Cannot grow ${this.description}: the server has ${now.sizeBytes} bytes, ${sizeBytes} needed`,
          { hint: "Grow the export at its server first." },
        );
      }
      await this.#renew();
      this.#sizeBytes = this.#offer.sizeBytes;
    } finally {
      this.#growing = this.#renewing = false;
      if (this.#state !== "ending" && this.#failsNow()) this.#failAll();
      this.#reactor.hooksWanted = true;
      this.#reactor.wake();
    }
  }

  /** Lets what is in flight end and connects anew. */
  async #renew(): Promise<void> {
    let late = false;
    this.#renewing = true;
    this.#reactor.sleep(GROW_MS).then(() => {
      late = true;
      this.#changed();
    });
    while (this.#state === "up" && this.#sentCount > 0 && !late) await this.#change();
    if (this.#state === "up" && !late) {
      this.#state = "ending";
      this.#connection.end();
    }
    while (this.#state !== "up" && this.#state !== "finished" && !late) await this.#change();
    if (this.#state !== "up" || late) {
      throw new PsmaError(
        "store/unreachable",
        `Cannot grow ${this.description}: it does not answer`,
      );
    }
  }

  async close(): Promise<void> {
    if (this.#closing) return;
    while (this.#state === "up" && this.#waiting.length > 0) await this.#change();
    this.#closing = true;
    if (this.#state === "up") {
      this.#connection.sayGoodbye();
      this.#reactor.sleep(GOODBYE_MS).then(() => this.#connection.end());
    } else if (this.#state === "down") {
      this.#state = "finished";
      this.#failAll();
    }
    while (this.#state !== "finished") await this.#change();
    const hooks = this.#reactor.afterBatch;
    hooks.splice(hooks.indexOf(this.#afterBatch), 1);
  }

  #change(): Promise<void> {
    const { promise, resolve } = this.#reactor.deferred<void>();
    this.#changeWaiters.push(() => resolve());
    return promise;
  }

  #changed() {
    const waiters = this.#changeWaiters;
    if (waiters.length === 0) return;
    this.#changeWaiters = [];
    for (const resolve of waiters) resolve();
  }

  #say(type: string, severity: NbdBackendEvent["severity"], message: string) {
    this.#onEvent({ type, severity, message });
  }
}
