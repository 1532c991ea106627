/**
 * One NBD session: its receive buffer, the parser of requests, and the replies. Hot path: from
 * `onReceived` to `reply` nothing allocates, awaits or throws, but for one short-lived view per payload
 * that came with its header (a view and a copy cost no more than a foreign call to copy).
 *
 * Back-pressure: without a free slot, or above its fair share of them, a session stops parsing and thereby
 * receiving; the peer's socket fills up and the peer waits. Nothing is queued beyond the slots.
 *
 * Faults: a session that breaks the protocol, or whose peer is gone, is cut alone. Bytes that a cut
 * session had not yet handed to the volume are never read. Requests that the volume already has run to
 * their end; then their slots are released, and only after the last one, and the ring's last operation on
 * it, the descriptor is closed and the record is free for another session.
 */
import {
  decodeRequest,
  encodeSimpleReply,
  NBD_CMD,
  NBD_ERROR,
  NBD_REQUEST_BYTES,
  NBD_SIMPLE_REPLY_BYTES,
  nbdErrorOf,
  type NbdRequest,
} from "../codec/mod.ts";
import {
  allocateMemory,
  closeFile,
  type GatherEvents,
  GatherSender,
  type Memory,
  type Ring,
  shutdownSocket,
} from "../sys/mod.ts";
import { OPERATION, type Requests } from "../volume/mod.ts";
import { flagsFit, operationCode, operationFlags } from "./nbd_command.ts";
import type { ExportSession, NbdExport } from "./nbd_exports.ts";

const RECEIVE_BYTES = 192 * 1024;
/** From this size on, payloads go straight to their slots and receives into the buffer stay short. */
const LARGE_PAYLOAD_BYTES = 32 * 1024;
const SHORT_RECEIVE_BYTES = 4096;
const EINTR = -4, EAGAIN = -11;

export const PHASE = {
  /** Free for a new connection. */
  closed: 0,
  clientFlags: 1,
  options: 2,
  /** Granted an export; waits until the writers before it have drained. */
  held: 3,
  transmission: 4,
  /** Said goodbye: the rest is answered, then it ends. */
  leaving: 5,
  /** Cut: waits for the volume and the kernel. */
  cut: 6,
} as const;

/** What a session needs from the server. */
export interface NbdSessionHost {
  readonly ring: Ring;
  readonly requests: Requests;
  readonly owner: number;
  /** Of the slot arena. */
  readonly arena: DataView;
  readonly kinds: {
    readonly receive: number;
    readonly payload: number;
    readonly send: number;
    readonly cancel: number;
  };
  /** Slots that one session may hold. */
  readonly fairShare: number;
  /** Flushes the session's replies after this batch. */
  replyWaits(session: NbdSession): void;
  /** Parses the session again when slots are free. */
  stall(session: NbdSession): void;
  /** A slot of a stalled session became free. */
  unstall(): void;
  /** Negotiation bytes are there. */
  negotiate(session: NbdSession): void;
  /** A piece of negotiation has left. */
  negotiationSent(session: NbdSession): void;
  /** It was cut; `reason` is undefined for a peer that left in good order. */
  onCut(session: NbdSession, reason: string | undefined): void;
  /** No request of a cut session is in the volume any more. */
  onDrained(session: NbdSession): void;
  onClosed(session: NbdSession): void;
}

/** Tag of pieces that are negotiation, not a slot. */
const NEGOTIATION = -1;

export class NbdSession implements GatherEvents, ExportSession {
  fd = -1;
  phase: number = PHASE.closed;
  /** Bytes to discard: the payload of a refused write, or data of an option that is too long. */
  skipBytes = 0;
  export: NbdExport | undefined;
  readOnly = false;
  epoch: number | undefined;
  /** Ticks until negotiation must have ended. */
  ticksLeft = 0;
  /** True once it may send, or could have sent, requests. */
  transmitted = false;
  stalled = false;
  replying = false;
  readonly buffer: Memory = allocateMemory(RECEIVE_BYTES);
  readonly bufferView: DataView;
  /** Unparsed bytes are `[start, end)` of the buffer. */
  start = 0;
  end = 0;
  readonly sender: GatherSender;
  #ringOperations = 0;
  #receiving = false;
  #largePayloads = false;
  #payloadSlot = -1;
  #payloadBytes = 0;
  #held = 0;
  #submitted = 0;
  #drainReported = false;
  readonly #request: NbdRequest = {
    flags: 0,
    type: 0,
    cookieHigh: 0,
    cookieLow: 0,
    at: 0,
    length: 0,
  };
  readonly #dropReply = (tag: number) => {
    if (tag !== NEGOTIATION) this.#release(tag);
  };

  constructor(readonly host: NbdSessionHost, readonly index: number) {
    this.bufferView = new DataView(this.buffer.bytes.buffer);
    const { ring, kinds, requests } = host;
    this.sender = new GatherSender(ring, kinds.send, index, requests.count + 1, this);
  }

  get submitted(): number {
    return this.#submitted;
  }

  get alive(): boolean {
    return this.phase !== PHASE.closed && this.phase !== PHASE.cut;
  }

  /** Begins with an accepted socket. */
  open(fd: number, ticksLeft: number): void {
    this.fd = this.sender.fd = fd;
    this.phase = PHASE.clientFlags;
    this.ticksLeft = ticksLeft;
    this.start = this.end = this.skipBytes = 0;
    this.export = this.epoch = undefined;
    this.readOnly = this.transmitted = this.#drainReported = false;
    this.#largePayloads = false;
  }

  /** Asks for more bytes, unless that is under way. */
  receive(): void {
    if (this.#receiving || !this.alive || this.phase === PHASE.leaving) return;
    if (this.start > 0) {
      this.buffer.bytes.copyWithin(0, this.start, this.end);
      this.end -= this.start;
      this.start = 0;
    }
    const room = RECEIVE_BYTES - this.end;
    const length = this.#largePayloads && this.skipBytes === 0 ? SHORT_RECEIVE_BYTES : room;
    this.#receiving = true;
    this.#ringOperations++;
    this.host.ring.recv(
      this.fd,
      this.buffer.address + this.end,
      length,
      false,
      this.host.kinds.receive,
      this.index,
    );
  }

  onReceived(result: number): void {
    this.#ringOperations--;
    this.#receiving = false;
    if (!this.alive) return this.#settle();
    if (result === EINTR || result === EAGAIN) return this.receive();
    if (result <= 0) return this.cut(undefined);
    this.end += result;
    this.parse();
  }

  /** Works on the bytes that are there, as far as slots allow, then asks for more. */
  parse(): void {
    if (this.phase === PHASE.transmission) this.#parseRequests();
    else if (this.phase < PHASE.transmission) this.host.negotiate(this);
  }

  /** Discards what is to be discarded. @returns false while more of it is to come. */
  skip(): boolean {
    const skipped = Math.min(this.skipBytes, this.end - this.start);
    this.start += skipped;
    this.skipBytes -= skipped;
    return this.skipBytes === 0;
  }

  #parseRequests() {
    const host = this.host, request = this.#request;
    while (this.skip() && this.end - this.start >= NBD_REQUEST_BYTES) {
      if (!decodeRequest(this.bufferView, this.start, request)) {
        return this.cut("its request has a wrong magic number");
      }
      if (request.type === NBD_CMD.disconnect) {
        this.phase = PHASE.leaving;
        if (this.#held === 0) this.cut(undefined);
        return;
      }
      const slot = this.#held < host.fairShare ? host.requests.take(host.owner) : -1;
      if (slot < 0) return host.stall(this);
      this.#held++;
      this.start += NBD_REQUEST_BYTES;
      if (!this.#begin(slot)) return;
    }
    this.receive();
  }

  /** Hands the parsed request on. @returns false when its payload is still to be received. */
  #begin(slot: number): boolean {
    const request = this.#request, requests = this.host.requests;
    requests.session[slot] = this.index;
    requests.cookieHigh[slot] = request.cookieHigh;
    requests.cookieLow[slot] = request.cookieLow;
    requests.at[slot] = request.at;
    requests.length[slot] = request.length;
    requests.flags[slot] = operationFlags(request.flags);
    const code = operationCode(request.type);
    requests.code[slot] = code < 0 ? OPERATION.flush : code;
    const refusal = this.#refusal(code);
    if (refusal !== 0) {
      if (request.type === NBD_CMD.write) this.skipBytes = request.length;
      requests.errno[slot] = refusal;
      this.#reply(slot);
      return true;
    }
    if (code === OPERATION.write) return this.#takePayload(slot, request.length);
    this.#submit(slot);
    return true;
  }

  /** What the volume cannot judge: commands, flags, this session's rights, and the slot's size. */
  #refusal(code: number): number {
    const { flags, type, length } = this.#request;
    if (code < 0 || !flagsFit(type, flags)) return NBD_ERROR.invalid;
    if (code <= OPERATION.write && length > this.host.requests.maxIo) return NBD_ERROR.invalid;
    const changes = code !== OPERATION.read && code !== OPERATION.flush;
    return changes && this.readOnly ? NBD_ERROR.permission : 0;
  }

  #takePayload(slot: number, length: number): boolean {
    const host = this.host;
    this.#largePayloads = length >= LARGE_PAYLOAD_BYTES;
    const there = Math.min(this.end - this.start, length);
    const payload = this.buffer.bytes.subarray(this.start, this.start + there);
    host.requests.arena.bytes.set(payload, host.requests.dataOffset(slot));
    this.start += there;
    if (there === length) {
      this.#submit(slot);
      return true;
    }
    this.#payloadSlot = slot;
    this.#payloadBytes = there;
    this.#receivePayload();
    return false;
  }

  #receivePayload() {
    const { requests, ring, kinds } = this.host, slot = this.#payloadSlot;
    this.#ringOperations++;
    ring.recv(
      this.fd,
      requests.dataAddress(slot) + this.#payloadBytes,
      (requests.length[slot] as number) - this.#payloadBytes,
      true,
      kinds.payload,
      this.index,
    );
  }

  onPayload(result: number): void {
    this.#ringOperations--;
    const slot = this.#payloadSlot;
    if (!this.alive) {
      this.#payloadSlot = -1;
      this.#release(slot);
      return this.#settle();
    }
    if (result === EINTR || result === EAGAIN) return this.#receivePayload();
    if (result <= 0) {
      this.#payloadSlot = -1;
      this.#release(slot);
      return this.cut(undefined);
    }
    this.#payloadBytes += result;
    if (this.#payloadBytes < (this.host.requests.length[slot] as number)) {
      return this.#receivePayload();
    }
    this.#payloadSlot = -1;
    this.#submit(slot);
    this.parse();
  }

  #submit(slot: number) {
    this.#submitted++;
    (this.export as NbdExport).volume.submit(slot);
  }

  /** The volume is done with a slot of this session. */
  onCompleted(slot: number): void {
    this.#submitted--;
    if (this.alive) return this.#reply(slot);
    this.#release(slot);
    this.#settle();
  }

  #reply(slot: number) {
    const { requests, arena } = this.host;
    const error = requests.errno[slot] as number;
    encodeSimpleReply(
      arena,
      requests.dataOffset(slot) - NBD_SIMPLE_REPLY_BYTES,
      nbdErrorOf(error),
      requests.cookieHigh[slot] as number,
      requests.cookieLow[slot] as number,
    );
    const dataBytes = error === 0 && requests.code[slot] === OPERATION.read
      ? requests.length[slot] as number
      : 0;
    const address = requests.dataAddress(slot) - NBD_SIMPLE_REPLY_BYTES;
    this.sender.queue(address, NBD_SIMPLE_REPLY_BYTES + dataBytes, slot);
    this.host.replyWaits(this);
  }

  /** Queues bytes of negotiation; the memory stays untouched until `negotiationSent`. */
  sendNegotiation(address: number, length: number): void {
    this.sender.queue(address, length, NEGOTIATION);
    this.host.replyWaits(this);
  }

  onSent(tag: number): void {
    if (tag === NEGOTIATION) return this.host.negotiationSent(this);
    this.#release(tag);
    if (this.stalled) this.host.unstall();
    if (this.phase === PHASE.leaving && this.#held === 0) this.cut(undefined);
  }

  onBroken(_errno: number): void {
    this.cut(undefined);
  }

  onSendCompleted(result: number): void {
    this.sender.onCompletion(this.alive ? result : Math.min(result, -1));
    if (!this.alive) this.#settle();
    else if (this.sender.waiting > 0) this.host.replyWaits(this);
  }

  onCancelCompleted(): void {
    this.#ringOperations--;
    this.#settle();
  }

  #release(slot: number) {
    this.#held--;
    this.host.requests.release(slot);
  }

  cut(reason: string | undefined): void {
    if (!this.alive) return;
    this.phase = PHASE.cut;
    this.start = this.end = 0;
    shutdownSocket(this.fd);
    this.#ringOperations++;
    this.host.ring.cancelFd(this.fd, this.host.kinds.cancel, this.index);
    this.host.onCut(this, reason);
    this.#settle();
  }

  /** After a cut: reports once that the volume is done, and closes when the kernel is too. */
  #settle() {
    if (this.phase !== PHASE.cut) return;
    if (this.sender.idle) this.sender.drop(this.#dropReply);
    if (this.#submitted === 0 && !this.#drainReported) {
      this.#drainReported = true;
      this.host.onDrained(this);
    }
    if (this.#held > 0 || this.#ringOperations > 0 || !this.sender.idle) return;
    closeFile(this.fd);
    this.fd = this.sender.fd = -1;
    this.phase = PHASE.closed;
    this.host.onClosed(this);
  }
}
