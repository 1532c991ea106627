/**
 * The NBD server: listens, keeps the table of sessions, and flushes their replies once per batch.
 *
 * Bounds: connections, seconds to negotiate, seconds of silence where asked for, the shared slots for requests.
 * Faults: a listener that cannot accept rests for a tick. Exports come and go while sessions of others run.
 */
import { assert, errnoText, PsmaError } from "../../core/mod.ts";
import {
  addressText,
  allocateMemory,
  closeFile,
  type Memory,
  type Reactor,
  type Ring,
  type SocketAddress,
  tuneSocket,
} from "../../sys/mod.ts";
import type { Requests } from "../../volume/mod.ts";
import { type NbdExport, NbdExports, type ServedVolume } from "./exports.ts";
import { type ListenerEvents, NbdListeners } from "./listeners.ts";
import { NbdNegotiation } from "./negotiation.ts";
import { NbdReplies } from "./reply.ts";
import { NbdSession } from "./session.ts";
import { type NbdSessionHost, PHASE } from "./session_host.ts";

const CONNECTIONS = 256;
const HANDSHAKE_S = 10;
/** A client that vanished without a word, or reads nothing of what it asked for, is given up after this long. */
const DEAD_PEER_MS = 60_000;
const DESCRIPTION_BYTES_MAX = 4096;

/** Something for the event log. */
export interface NbdServerEvent {
  readonly type: string;
  readonly severity: "info" | "warning" | "error";
  readonly volume?: string;
  readonly message: string;
}

export interface NbdServerOptions {
  readonly reactor: Reactor;
  readonly requests: Requests;
  /** Writers must name an epoch, and a newer one cuts the older: a data store's way. */
  readonly fenced: boolean;
  /** Seconds that a client may take to negotiate; default 10. */
  readonly handshake_s?: number;
  /** Seconds after which a client that sends nothing, and waits for nothing, is cut; default 0, never. */
  readonly idle_s?: number;
  /** Clients that may be connected at once; default 256. */
  readonly connections?: number;
  readonly onEvent?: (event: NbdServerEvent) => void;
}

/** What a server has seen since it began. */
export interface NbdServerStatistics {
  /** Clients that are connected, and how many ever were. */
  readonly connected: number;
  readonly accepted: number;
  /** Turned away because too many were connected. */
  readonly turned_away: number;
  /** Cut for what they did, or for taking too long. */
  readonly cut: number;
}

export interface NbdExportOptions {
  readonly name: string;
  readonly description: string;
  readonly volume: ServedVolume;
  readonly readOnly?: boolean;
  /** Where a fenced export's epoch stands already. */
  readonly epoch?: number;
}

export class NbdServer implements NbdSessionHost<NbdSession>, ListenerEvents {
  readonly ring: Ring;
  readonly requests: Requests;
  readonly owner: number;
  readonly replies: NbdReplies;
  readonly kinds: NbdSessionHost<NbdSession>["kinds"];
  readonly #reactor: Reactor;
  readonly #onEvent: (event: NbdServerEvent) => void;
  readonly #exports: NbdExports;
  readonly #negotiation: NbdNegotiation;
  readonly #listeners: NbdListeners;
  readonly #handshake_s: number;
  readonly #idle_s: number;
  readonly #connections: number;
  readonly #sessions: NbdSession[] = [];
  readonly #free: number[] = [];
  /** Records in use, and those of them that are connected: a cut one may still wait for its volume. */
  #open = 0;
  #connected = 0;
  #transmitting = 0;
  #accepted = 0;
  #turnedAway = 0;
  #cut = 0;
  #full = false;
  #replying: NbdSession[] = [];
  #flushing: NbdSession[] = [];
  #stalled: NbdSession[] = [];
  #resuming: NbdSession[] = [];
  #resumeWanted = false;
  readonly #tickKind: number;
  readonly #tick: Memory;
  #ticking = false;
  #closing = false;
  #closeWaiters: (() => void)[] = [];
  readonly #afterBatch = () => this.#flush();
  readonly #onFree = () => this.unstall();

  constructor(options: NbdServerOptions) {
    const { reactor, requests } = options;
    this.#reactor = reactor;
    this.ring = reactor.ring;
    this.requests = requests;
    this.#onEvent = options.onEvent ?? (() => {});
    const { buffer, byteOffset } = requests.arena.bytes;
    this.replies = new NbdReplies(requests, new DataView(buffer, byteOffset));
    this.owner = requests.registerOwner((slot) =>
      this.#session(requests.session[slot] as number).onCompleted(slot)
    );
    const ring = this.ring;
    this.kinds = {
      receive: ring.register((index, result) => this.#session(index).onReceived(result)),
      payload: ring.register((index, result) => this.#session(index).onPayload(result)),
      send: ring.register((index, result) => this.#session(index).onSendCompleted(result)),
      cancel: ring.register((index) => this.#session(index).onCancelCompleted()),
    };
    this.#listeners = new NbdListeners(ring, this);
    this.#handshake_s = options.handshake_s ?? HANDSHAKE_S;
    this.#idle_s = options.idle_s ?? 0;
    this.#connections = options.connections ?? CONNECTIONS;
    this.#tickKind = ring.register(() => this.#onTick());
    this.#tick = allocateMemory(4096);
    new BigInt64Array(this.#tick.bytes.buffer, 0, 2)[0] = 1n;
    this.#exports = new NbdExports(options.fenced);
    this.#negotiation = new NbdNegotiation(this.#exports, requests.maxIo, {
      refused: (message) => this.#say("nbd.refused", "warning", message),
      entered: () => this.#transmitting++,
    });
    reactor.afterBatch.push(this.#afterBatch);
    requests.onFree.push(this.#onFree);
  }

  /** What it has seen since it began. */
  statistics(): NbdServerStatistics {
    return {
      connected: this.#connected,
      accepted: this.#accepted,
      turned_away: this.#turnedAway,
      cut: this.#cut,
    };
  }

  /** Slots that one session may hold: three quarters, shared among those that send requests. */
  get fairShare(): number {
    const share = Math.floor(this.requests.count * 3 / 4 / Math.max(1, this.#transmitting));
    return Math.max(4, share);
  }

  /**
   * Listens on a Unix socket or TCP. May be called more than once.
   * @returns where: `unix:/path` or `host:port`. @throws {PsmaError} state/address-in-use, sys/...
   */
  listen(address: SocketAddress): string {
    const text = addressText(this.#listeners.listen(address));
    this.#reactor.wake();
    return text;
  }

  /** The URI of an export, on the address that was listened on first. */
  uri(name: string): string {
    const address = this.#listeners.firstAddress;
    if (!address) {
      throw new PsmaError("state/not-listening", `Cannot name ${name}: nothing listens`);
    }
    const path = encodeURIComponent(name);
    return "path" in address
      ? `nbd+unix:///${path}?socket=${encodeURIComponent(address.path).replaceAll("%2F", "/")}`
      : `nbd://${addressText(address)}/${path}`;
  }

  /** @throws {PsmaError} state/export-exists, usage/description */
  addExport(options: NbdExportOptions): void {
    const { name, description, volume } = options;
    if (this.#exports.get(name)) {
      throw new PsmaError("state/export-exists", `Cannot export ${name}: it is exported already`);
    }
    if (new TextEncoder().encode(description).length > DESCRIPTION_BYTES_MAX) {
      throw new PsmaError(
        "usage/description",
        `Cannot export ${name}: its description is too long`,
      );
    }
    this.#exports.set({
      name,
      description,
      volume,
      readOnly: options.readOnly ?? false,
      epoch: options.epoch ?? 0,
      sessions: new Set(),
      draining: new Set(),
      drainWaiters: [],
    });
  }

  hasExport(name: string): boolean {
    return this.#exports.get(name) !== undefined;
  }

  /** Clients that use an export now; none where there is no such export. */
  sessionCount(name: string): number {
    return this.#exports.get(name)?.sessions.size ?? 0;
  }

  /** Takes an export off, cuts its sessions, and waits for their requests. Nothing when it is not there. */
  async removeExport(name: string): Promise<void> {
    const entry = this.#exports.get(name);
    if (!entry) return;
    this.#exports.delete(name);
    for (const session of [...entry.sessions]) session.cut("its export was removed");
    await this.#drain(entry);
  }

  /**
   * Raises the fencing epoch: writers below it are cut, and their requests have ended when this resolves.
   * @throws {PsmaError} not-found/export, fenced/epoch when the epoch is higher already.
   */
  async promote(name: string, epoch: number): Promise<void> {
    const entry = this.#exports.get(name);
    if (!entry) throw new PsmaError("not-found/export", `Cannot promote ${name}: no such export`);
    if (epoch < entry.epoch) {
      throw new PsmaError(
        "fenced/epoch",
        `Cannot promote ${name} to epoch ${epoch}: its epoch is ${entry.epoch}`,
      );
    }
    entry.epoch = epoch;
    for (const session of [...entry.sessions]) {
      if (session.epoch !== undefined && session.epoch < epoch) {
        session.cut(`epoch ${epoch} fenced it`);
      }
    }
    await this.#drain(entry);
  }

  /** Resolves when no request of a session that was cut is under way; at once where there is no such export. */
  async drained(name: string): Promise<void> {
    const entry = this.#exports.get(name);
    if (entry) await this.#drain(entry);
  }

  async #drain(entry: NbdExport): Promise<void> {
    while (entry.draining.size > 0) {
      const { promise, resolve } = this.#reactor.deferred<void>();
      entry.drainWaiters.push(() => resolve());
      await promise;
    }
  }

  /** Stops listening, cuts all sessions, and waits until the volumes and the kernel are done with them. */
  async close(): Promise<void> {
    this.#closing = true;
    this.#listeners.close();
    for (const session of this.#sessions) session.cut(undefined);
    while (this.#open > 0 || !this.#listeners.closed) {
      const { promise, resolve } = this.#reactor.deferred<void>();
      this.#closeWaiters.push(() => resolve());
      await promise;
    }
    remove(this.#reactor.afterBatch, this.#afterBatch);
    remove(this.requests.onFree, this.#onFree);
  }

  #progressClose() {
    if (!this.#closing) return;
    const waiters = this.#closeWaiters;
    this.#closeWaiters = [];
    for (const resume of waiters) resume();
  }

  listenerClosed(): void {
    this.#progressClose();
  }

  acceptFailed(errno: number): void {
    this.#say("nbd.accept", "warning", `cannot accept a connection: ${errnoText(errno)}`);
    this.#startTicking();
  }

  accepted(fd: number, isUnix: boolean): void {
    // Cut sessions whose requests still run keep their record, and at least one slot each.
    if (this.#connected >= this.#connections) {
      closeFile(fd);
      this.#turnedAway++;
      if (!this.#full) {
        this.#say("nbd.full", "warning", `${this.#connected} sessions are connected`);
      }
      this.#full = true;
      return;
    }
    this.#full = false;
    this.#accepted++;
    tuneSocket(fd, isUnix, DEAD_PEER_MS);
    const index = this.#free.pop() ?? this.#sessions.length;
    const session = this.#sessions[index] ??= new NbdSession(this, index);
    this.#open++;
    this.#connected++;
    session.open(fd, this.#handshake_s);
    this.#negotiation.begin(session);
    session.receive();
    this.#startTicking();
  }

  #startTicking() {
    if (this.#ticking) return;
    this.#ticking = true;
    this.ring.timeout(this.#tick.address, this.#tickKind, 0);
  }

  /** Once a second while somebody negotiates, may be idle for too long, or a listener rests. */
  #onTick() {
    this.#ticking = false;
    if (this.#closing) return;
    let watching = false;
    for (const session of this.#sessions) {
      if (!session.alive) continue;
      const negotiates = session.phase < PHASE.transmission;
      if (!negotiates && this.#idle_s === 0) continue;
      watching = true;
      if (negotiates && --session.ticksLeft <= 0) session.cut("its negotiation took too long");
      else if (!negotiates && session.idleTick() > this.#idle_s) session.cut("it was idle");
    }
    this.#listeners.resume();
    if (watching) this.#startTicking();
  }

  replyWaits(session: NbdSession): void {
    this.#reactor.hooksWanted = true;
    if (session.replying) return;
    session.replying = true;
    this.#replying.push(session);
  }

  stall(session: NbdSession): void {
    if (session.stalled) return;
    session.stalled = true;
    this.#stalled.push(session);
  }

  unstall(): void {
    this.#resumeWanted = true;
    this.#reactor.hooksWanted = true;
  }

  wake(): void {
    this.#reactor.wake();
  }

  /** After a batch: stalled sessions go on, oldest first, then all replies leave. */
  #flush() {
    if (this.#resumeWanted) {
      this.#resumeWanted = false;
      const resuming = this.#stalled;
      this.#stalled = this.#resuming;
      this.#resuming = resuming;
      for (let i = 0; i < resuming.length; i++) {
        const session = resuming[i] as NbdSession;
        session.stalled = false;
        if (session.alive) session.parse();
      }
      resuming.length = 0;
    }
    if (this.#replying.length === 0) return;
    const flushing = this.#replying;
    this.#replying = this.#flushing;
    this.#flushing = flushing;
    for (let i = 0; i < flushing.length; i++) {
      const session = flushing[i] as NbdSession;
      session.replying = false;
      if (session.alive) session.sender.flush();
    }
    flushing.length = 0;
  }

  negotiate(session: NbdSession): void {
    this.#negotiation.read(session);
  }

  negotiationSent(session: NbdSession): void {
    this.#negotiation.sent(session);
  }

  onCut(session: NbdSession, reason: string | undefined): void {
    this.#connected--;
    this.#exports.leave(session);
    if (reason === undefined) return;
    this.#cut++;
    this.#say("nbd.cut", "warning", `cut a session: ${reason}`, session.export?.name);
  }

  onDrained(session: NbdSession): void {
    this.#exports.drained(session);
  }

  onClosed(session: NbdSession): void {
    this.#open--;
    if (session.transmitted) this.#transmitting--;
    session.export = undefined;
    this.#free.push(session.index);
    this.#progressClose();
  }

  #session(index: number): NbdSession {
    return this.#sessions[index] as NbdSession;
  }

  #say(type: string, severity: NbdServerEvent["severity"], message: string, volume?: string) {
    this.#onEvent({ type, severity, message, ...(volume === undefined ? {} : { volume }) });
  }
}

function remove<T>(list: T[], item: T): void {
  const at = list.indexOf(item);
  assert(at >= 0, "hook is not registered");
  list.splice(at, 1);
}
