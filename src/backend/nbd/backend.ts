/**
 * A backend on an NBD server: many requests in flight on one connection, or on several where the server
 * allows it; connections that are lost are made anew.
 *
 * Faults: when a connection is lost, `hold` keeps its operations and sends them again, in order, by the
 * others or after a reconnect; `fail` completes them with EIO as soon as the kernel is done with their memory,
 * and those that come while there is no connection at once. A server that stays connected and leaves a
 * request without an answer for too long counts as lost; the limit rises while that repeats, so that slow work
 * ends one day. All reconnect with growing pauses, for ever. A server that fences us out is final.
 * Not promised: what was written and not flushed may be gone when the server itself died; `onLost` says so.
 * Nor can a client know when requests of a lost connection end in the server: one that runs late there could
 * land after a newer write. PSMA's fenced server lets a writer in only when those before it have drained;
 * with any other, a connection that stands is never given up while writes that would be sent again are on it.
 *
 * Several connections: operations in flight have no order among each other, on one connection or on many, so
 * each goes where least is waiting. CAN_MULTI_CONN makes a flush by any of them cover what was answered by all.
 *
 * What a server cannot do is emulated: FUA by a flush afterwards, write-zeroes by writing zeros. Trim is
 * write-zeroes that may leave a hole, because NBD's own trim promises nothing of what is read later. An
 * operation larger than the server's limit goes in pieces, one after the other. An operation that is to be
 * durable by a flush begins anew after a loss: the server may have died with what it had answered.
 * Hot path: submit, the hook and the replies neither allocate, await nor throw.
 */
import { type Deferred, PsmaError, systemRng } from "../../core/mod.ts";
import { NBD_ERROR, NBD_FLAG, nbdErrorOf } from "../../codec/mod.ts";
import type { Reactor } from "../../sys/mod.ts";
import type { Backend, Extent, LossPolicy } from "../backend.ts";
import { BackendMeter } from "../meter.ts";
import { NbdDialler } from "./dialler.ts";
import type { NbdLane } from "./lane.ts";
import { NbdLanes, type NbdLanesOwner } from "./lanes.ts";
import { can, type NbdOffer } from "./offer.ts";
import type { NbdBackendEvent, NbdBackendOptions } from "./options.ts";
import {
  isTooSlow,
  needsFlush,
  nextPiece,
  type Piece,
  restartUnflushed,
  STEP,
  stepAfterRefusedZero,
} from "./piece.ts";
import { OpList, OpQueue } from "./queue.ts";
import { NbdRequests, NOWHERE } from "./requests.ts";
import { NbdStatus, type NbdStatusHost } from "./status.ts";
import { hasEpoch, type NbdTarget, parseNbdUri, raiseEpoch, targetText } from "./uri.ts";
import { NbdWatch } from "./watch.ts";
import { OPERATION, type Operations } from "../operations.ts";

const EIO = 5;
const GROW_MS = 10_000, ANSWER_LIMIT_MS = 30_000;
/** How far the limit for an answer rises while what overran it overruns it again. */
const PATIENCE_MAX = 8;
/** In place of a connection: the operation is about to fail. */
const DOOMED = -2;

/**
 * Connects to an export; the loss policy is `hold` until it is set.
 * @throws {PsmaError} usage/nbd-uri, usage/host, store/unreachable, store/nbd-protocol, not-found/export, fenced/epoch
 */
export async function openNbdBackend(options: NbdBackendOptions): Promise<NbdBackend> {
  const backend = new NbdBackend(options);
  try {
    await backend.open();
    return backend;
  } catch (error) {
    await backend.close();
    throw error;
  }
}

export class NbdBackend implements Backend, NbdLanesOwner, NbdStatusHost {
  readonly description: string;
  readonly meter: BackendMeter = new BackendMeter();
  onLost: (() => void) | undefined = undefined;
  readonly #reactor: Reactor;
  readonly #operations: Operations;
  readonly #target: NbdTarget;
  readonly #expectedSizeBytes: number | undefined;
  readonly #fenced: boolean;
  readonly #onEvent: (event: NbdBackendEvent) => void;
  readonly #lanes: NbdLanes;
  readonly #prober: NbdDialler;
  readonly #requests: NbdRequests;
  readonly #watch: NbdWatch;
  readonly #status: NbdStatus;
  /** All operations without an answer, in order of submission. */
  readonly #waiting: OpList;
  /** Those of them whose next piece is to be sent. */
  readonly #ready: OpQueue;
  readonly #piece: Piece = { type: 0, flags: 0, at: 0, length: 0, payload: 0 };
  #policy: LossPolicy = "hold";
  /** Fenced out, until the epoch is raised, or closed. */
  #finished = false;
  #shutOut = false;
  /** True while `grow` lets what is in flight end, to connect anew. */
  #renewing = false;
  #growing = false;
  #closing = false;
  #patience = 1;
  #saidSlow = false;
  #changeWaiters: (() => void)[] = [];
  readonly #afterBatch = () => this.#pump();

  /** @throws {PsmaError} usage/nbd-uri, usage/host, usage/socket-path */
  constructor(options: NbdBackendOptions) {
    const { reactor, operations, onEvent = () => {}, rng = systemRng, connections = 1 } = options;
    const { capacity } = operations, { place } = options;
    const target = { ...parseNbdUri(options.uri), ...(place === undefined ? {} : { place }) };
    const requests = new NbdRequests(capacity), description = `nbd ${targetText(target)}`;
    this.description = description;
    this.#target = target;
    this.#reactor = reactor;
    this.#operations = operations;
    this.#expectedSizeBytes = options.expectedSizeBytes;
    this.#fenced = options.fenced ?? hasEpoch(target);
    this.#onEvent = onEvent;
    this.#requests = requests;
    this.#waiting = new OpList(capacity);
    this.#ready = new OpQueue(capacity);
    this.#status = new NbdStatus(requests, this);
    this.#prober = new NbdDialler(reactor, target, options);
    const { dialLimitMs, resolveHost, answerLimitMs = ANSWER_LIMIT_MS } = options;
    const shared = { reactor, requests, target, rng, dialLimitMs, resolveHost };
    this.#lanes = new NbdLanes({ ...shared, description, connections, onEvent }, this);
    this.#watch = new NbdWatch(reactor, answerLimitMs, () => this.#lookForStalls());
    reactor.afterBatch.push(this.#afterBatch);
  }

  /** Connects for the first time. @throws as `openNbdBackend`; it is then to be closed. */
  async open(): Promise<void> {
    await this.#lanes.open(this.#expectedSizeBytes);
  }

  get sizeBytes(): number {
    return this.#lanes.sizeBytes;
  }

  get connected(): boolean {
    return this.#lanes.connected;
  }

  get fenced(): boolean {
    return this.#shutOut;
  }

  /** How many connections are up. */
  get connections(): number {
    return this.#lanes.up;
  }

  /** The server takes no writes from us. */
  get readOnly(): boolean {
    return can(this.#lanes.leader.offer, NBD_FLAG.readOnly);
  }

  submit(op: number): void {
    this.#operations.begin(op, this.meter);
    this.#operations.scratch[op] = STEP.itself;
    this.#requests.lane[op] = NOWHERE;
    this.#requests.bornTick[op] = this.#watch.tick;
    this.#waiting.append(op);
    if (this.#failsNow()) return this.#complete(op, EIO);
    this.#ready.push(op);
    this.#reactor.hooksWanted = true;
  }

  /** True when an operation cannot be sent and must not wait either. */
  #failsNow(): boolean {
    return this.#finished ||
      (this.#policy === "fail" && !this.#lanes.connected && !this.#renewing);
  }

  /** After a batch: what is ready leaves in one send per connection. */
  #pump() {
    const ready = this.#ready, lanes = this.#lanes;
    if (ready.length === 0 || this.#renewing || !lanes.connected) return;
    while (ready.length > 0) {
      const lane = lanes.roomiest();
      if (lane === undefined) break;
      this.#sendPiece(lane, ready.shift());
    }
    lanes.flush();
    this.#watch.arm();
  }

  onRoom(): void {
    this.#reactor.hooksWanted = true;
  }

  #sendPiece(lane: NbdLane, op: number) {
    const piece = this.#piece, operations = this.#operations;
    if (isTooSlow(operations, op, lane.offer)) return this.#complete(op, NBD_ERROR.notSupported);
    nextPiece(operations, op, lane.offer, piece);
    if (piece.type < 0) return this.#complete(op, 0);
    const address = (operations.address[op] as number) + (operations.progress[op] as number);
    const generation = this.#requests.begin(op, lane.index, piece, address, this.#watch.tick);
    lane.queue(op, generation, piece);
  }

  onReply(lane: NbdLane, op: number, error: number): void {
    const requests = this.#requests, operations = this.#operations;
    requests.end(op);
    if (this.#renewing && requests.awaited === 0) this.#changed();
    if (op === requests.statusCookie) return this.#status.onReply(error);
    if (error !== 0) return this.#onError(lane, op, nbdErrorOf(error));
    if (operations.scratch[op] === STEP.flushing || operations.code[op] === OPERATION.flush) {
      return this.#complete(op, 0);
    }
    const progress = (operations.progress[op] as number) + (requests.bytes[op] as number);
    operations.progress[op] = progress;
    if (progress < (operations.length[op] as number)) return this.#again(op);
    if (!needsFlush(operations, op, lane.offer)) return this.#complete(op, 0);
    operations.scratch[op] = STEP.flushing;
    this.#again(op);
  }

  onExtent(length: number, flags: number): void {
    this.#status.onExtent(length, flags);
  }

  #again(op: number) {
    this.#ready.push(op);
    this.#reactor.hooksWanted = true;
  }

  #onError(lane: NbdLane, op: number, errno: number) {
    const step = stepAfterRefusedZero(this.#operations, op, lane.offer);
    if (errno === NBD_ERROR.notSupported && step !== undefined) {
      this.#operations.scratch[op] = step;
      return this.#again(op);
    }
    if (errno === NBD_ERROR.shutdown && this.#policy === "hold") {
      // It leaves, and will come back or not: the operation waits for that like the others.
      this.#again(op);
      return lane.drop("it is shutting down");
    }
    this.#complete(op, errno);
  }

  #complete(op: number, errno: number) {
    this.#waiting.remove(op);
    this.#operations.complete(op, errno);
    if (this.#waiting.length === 0) this.#changed();
  }

  // ---- Connections come and go ----

  onUp(): void {
    this.#reactor.hooksWanted = true;
    this.#changed();
  }

  onDown(): void {
    this.onLost?.();
  }

  /** What the connection carried is sent anew, or fails. */
  onEnded(lane: NbdLane): void {
    const requests = this.#requests;
    const lost = this.#where((op) => requests.lane[op] === lane.index);
    for (const op of lost) requests.end(op);
    if (requests.lane[requests.statusCookie] === lane.index) {
      requests.end(requests.statusCookie);
      this.#status.onLost();
    }
    if (this.#failsNow()) this.#failUnsent();
    // Others carry on; but whoever mirrors learns at once what this one has not done.
    else if (this.#policy === "fail" && !this.#renewing) this.#fail(lost);
    else this.#queueUnsent(lane.offer);
    this.#changed();
  }

  onFenced(): void {
    this.#finished = true;
    this.#shutOut = true;
    this.#failUnsent();
    this.#changed();
  }

  /** Operations without an answer that fit, in order of submission. */
  #where(fits: (op: number) => boolean): number[] {
    const found: number[] = [], waiting = this.#waiting;
    for (let op = waiting.first; op >= 0; op = waiting.after(op)) if (fits(op)) found.push(op);
    return found;
  }

  /** In order of submission, those that were sent before and those that were not. @param lost what the server offered. */
  #queueUnsent(lost: NbdOffer) {
    this.#ready.clear();
    for (const op of this.#where((op) => this.#requests.lane[op] === NOWHERE)) {
      restartUnflushed(this.#operations, op, lost);
      this.#again(op);
    }
  }

  /** What the kernel still has fails later, when it is done with it. */
  #failUnsent() {
    this.#ready.clear();
    this.#fail(this.#where((op) => this.#requests.lane[op] === NOWHERE));
  }

  /** Whoever hears of the first failure may do anything, submit or abort, before the second. */
  #fail(ops: readonly number[]) {
    const { lane } = this.#requests;
    for (const op of ops) lane[op] = DOOMED;
    for (const op of ops) if (lane[op] === DOOMED) this.#complete(op, EIO);
  }

  /** Gives connections up that have left a request without an answer for too long. @returns true while any waits. */
  #lookForStalls(): boolean {
    const { lane, sentTick, bornTick, statusCookie, awaited } = this.#requests;
    const watch = this.#watch, limit = this.#patience;
    const isStalled = (cookie: number) =>
      this.#lanes.get(lane[cookie] as number)?.state === "up" &&
      watch.isOver(sentTick[cookie] as number, limit);
    const stalled = this.#where(isStalled);
    if (isStalled(statusCookie)) stalled.push(statusCookie);
    const seconds = limit * watch.limitMs / 1000;
    for (const cookie of stalled) {
      const slow = this.#lanes.get(lane[cookie] as number);
      if (slow === undefined || this.#mustWaitFor(slow)) continue;
      this.#patience = Math.min(limit * 2, PATIENCE_MAX);
      slow.drop(`it has not answered for ${seconds} s`);
    }
    this.#tellSlow(
      stalled.some((cookie) => lane[cookie] !== NOWHERE && isStalled(cookie)),
      seconds,
    );
    const isOld = (op: number) => watch.isOver(bornTick[op] as number, 1);
    if (stalled.length === 0 && this.#where(isOld).length === 0) this.#patience = 1;
    return this.#waiting.length > 0 || awaited > 0;
  }

  /**
   * Sent again, a write that is late on this connection could land after a newer one. What fails is not sent
   * again: who mirrors copies it once more, and compares.
   */
  #mustWaitFor(slow: NbdLane): boolean {
    if (this.#fenced || this.#policy === "fail") return false;
    const { lane } = this.#requests, { code } = this.#operations;
    const isChange = (op: number) => code[op] !== OPERATION.read && code[op] !== OPERATION.flush;
    return this.#where((op) => lane[op] === slow.index && isChange(op)).length > 0;
  }

  /** Once, while it lasts. */
  #tellSlow(isSlow: boolean, seconds: number) {
    if (isSlow && !this.#saidSlow) {
      const message = `${this.description} has not answered for ${seconds} s, and is waited for: ` +
        "a write that it may still do must not be sent twice";
      this.#onEvent({ type: "nbd.slow", severity: "warning", message });
    }
    this.#saidSlow = isSlow;
  }

  setLossPolicy(policy: LossPolicy): void {
    this.#policy = policy;
    if (this.#failsNow()) this.#failUnsent();
    this.#changed();
  }

  abort(): void {
    this.#lanes.drop("it was given up");
  }

  // ---- Off the hot path ----

  dataExtents(from: number, length: number): Promise<readonly Extent[]> {
    return this.#status.dataExtents(from, length);
  }

  laneToAsk(): NbdLane | undefined {
    return this.#renewing ? undefined : this.#lanes.roomiest();
  }

  get holds(): boolean {
    return !this.#closing && !this.#finished && (this.#policy === "hold" || this.connected);
  }

  watched(): number {
    this.#watch.arm();
    return this.#watch.tick;
  }

  allocatedBytes(): number | undefined {
    return undefined;
  }

  /**
   * Takes over growth that happened at the server, by new connections; operations wait meanwhile.
   * @throws {PsmaError} state/cannot-grow when the export is smaller than asked for; store/unreachable
   */
  async grow(sizeBytes: number): Promise<void> {
    if (sizeBytes <= this.sizeBytes) return;
    await this.#anew("grow", async () => {
      const now = await this.#prober.ask();
      if (now.sizeBytes >= sizeBytes) return;
      throw new PsmaError(
        "state/cannot-grow",
        `Cannot grow ${this.description}: the server has ${now.sizeBytes} bytes, ${sizeBytes} needed`,
        { hint: "Grow the export at its server first." },
      );
    });
  }

  /**
   * A fenced server has then cut who came in with a lower one. Whom it has shut out is let in again.
   * @throws {PsmaError} store/unreachable, state/busy; the next connection has the new epoch all the same.
   */
  async raiseEpoch(epoch: number): Promise<void> {
    if (!raiseEpoch(this.#target, epoch)) return;
    if (this.#shutOut && !this.#closing) {
      this.#finished = this.#shutOut = false;
      return this.#lanes.begin();
    }
    if (!this.#lanes.connected) return;
    await this.#anew("promote", () => Promise.resolve());
  }

  /** Connects anew on purpose, when `precondition` holds. One at a time. */
  async #anew(verb: string, precondition: () => Promise<void>): Promise<void> {
    if (this.#growing) {
      throw new PsmaError(
        "state/busy",
        `Cannot ${verb} ${this.description}: it reconnects already`,
      );
    }
    this.#growing = true;
    try {
      await precondition();
      await this.#renew(verb);
    } finally {
      this.#growing = this.#renewing = this.#lanes.renewing = false;
      if (this.#failsNow()) this.#failUnsent();
      this.#reactor.hooksWanted = true;
      this.#changed();
      this.#reactor.wake();
    }
  }

  /** Lets what is in flight end and connects anew. */
  async #renew(verb: string): Promise<void> {
    const lanes = this.#lanes;
    let late = false;
    const alarm = this.#reactor.alarm(GROW_MS);
    alarm.over.then(() => {
      late = true;
      this.#changed();
    });
    this.#renewing = lanes.renewing = true;
    while (lanes.connected && this.#requests.awaited > 0 && !late) await this.change();
    if (lanes.connected && !late) lanes.renew();
    while (!lanes.connected && !this.#finished && !late) await this.change();
    if (!lanes.connected || late) {
      throw new PsmaError(
        "store/unreachable",
        `Cannot ${verb} ${this.description}: it does not answer`,
      );
    }
    alarm.cancel();
    lanes.sizeBytes = lanes.leader.offer.sizeBytes;
  }

  /** Gives everything back. What is in flight ends first while there is a connection, else it fails. Idempotent. */
  async close(): Promise<void> {
    if (this.#closing) return;
    while (this.connected && this.#waiting.length > 0) await this.change();
    this.#closing = true;
    this.#changed();
    this.#prober.giveUp();
    await this.#lanes.close();
    this.#finished = true;
    this.#failUnsent();
    await this.#watch.close();
    const hooks = this.#reactor.afterBatch;
    hooks.splice(hooks.indexOf(this.#afterBatch), 1);
  }

  /** Resolves when connections or operations have come or gone. */
  change(): Promise<void> {
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

  deferred<T>(): Deferred<T> {
    return this.#reactor.deferred();
  }
}
