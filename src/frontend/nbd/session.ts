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
  decodeExtendedRequest,
  decodeRequest,
  NBD_CMD,
  NBD_ERROR,
  NBD_EXTENDED_REQUEST_BYTES,
  NBD_REQUEST_BYTES,
  type NbdRequest,
} from "../../codec/mod.ts";
import {
  allocateMemory,
  closeFile,
  type GatherEvents,
  GatherSender,
  type Memory,
  shutdownSocket,
} from "../../sys/mod.ts";
import { OPERATION } from "../../volume/mod.ts";
import { NbdBlockStatus, type StatusSession } from "./block_status.ts";
import {
  flagsFit,
  operationCode,
  operationFlags,
  payloadBytes,
  QUIET_READ,
  SESSION_CODE,
} from "./command.ts";
import type { ExportSession, NbdExport, ServedVolume } from "./exports.ts";
import { LARGE_BYTES_MAX, type LargeSession, NbdLargeRequest } from "./large.ts";
import { REPLY_STYLE } from "./reply.ts";
import { type NbdSessionHost, PHASE } from "./session_host.ts";

const RECEIVE_BYTES = 192 * 1024;
/** From this size on, payloads go straight to their slots and receives into the buffer stay short. */
const LARGE_PAYLOAD_BYTES = 32 * 1024;
const SHORT_RECEIVE_BYTES = 4096;
const EINTR = -4, EAGAIN = -11;

/** Tag of pieces that are negotiation, not a slot. */
const NEGOTIATION = -1;

export class NbdSession implements GatherEvents, ExportSession, StatusSession, LargeSession {
  fd = -1;
  phase: number = PHASE.closed;
  /** Bytes to discard: the payload of a refused write, or data of an option that is too long. */
  skipBytes = 0;
  export: NbdExport | undefined;
  readOnly = false;
  epoch: number | undefined;
  /** REPLY_STYLE, as negotiated. */
  style: number = REPLY_STYLE.simple;
  /** Of `base:allocation`, where the client chose it. */
  contextId: number | undefined;
  /** The client asked for our block sizes, and so keeps to them. */
  sizesAgreed = false;
  /** Ticks until negotiation must have ended. */
  ticksLeft = 0;
  /** Ticks since a byte came or left. */
  #ticksIdle = 0;
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
  #payloadLength = 0;
  #payloadBytes = 0;
  #held = 0;
  #submitted = 0;
  #drainReported = false;
  readonly #status: NbdBlockStatus;
  readonly #large: NbdLargeRequest;
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

  constructor(readonly host: NbdSessionHost<NbdSession>, readonly index: number) {
    this.bufferView = new DataView(this.buffer.bytes.buffer);
    const { ring, kinds, requests } = host;
    this.sender = new GatherSender(ring, kinds.send, index, requests.count + 1, this);
    this.#status = new NbdBlockStatus(requests, this);
    this.#large = new NbdLargeRequest(requests, host.replies, this);
  }

  get volume(): ServedVolume {
    return (this.export as NbdExport).volume;
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
    this.style = REPLY_STYLE.simple;
    this.contextId = undefined;
    this.sizesAgreed = this.#largePayloads = false;
    this.#ticksIdle = 0;
    this.#large.reset();
  }

  /** A tick has passed. @returns ticks for which nothing came, left, or was waited for from the volume. */
  idleTick(): number {
    if (this.#submitted > 0 || !this.sender.idle) this.#ticksIdle = 0;
    return ++this.#ticksIdle;
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
    this.#ticksIdle = 0;
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
    const extended = this.style === REPLY_STYLE.extended;
    const headerBytes = extended ? NBD_EXTENDED_REQUEST_BYTES : NBD_REQUEST_BYTES;
    if (this.#large.active) return this.#goOnWithLarge();
    while (this.skip() && this.end - this.start >= headerBytes) {
      const decoded = extended
        ? decodeExtendedRequest(this.bufferView, this.start, request)
        : decodeRequest(this.bufferView, this.start, request);
      if (!decoded) return this.cut("its request has a wrong magic number");
      if (request.type === NBD_CMD.disconnect) {
        this.phase = PHASE.leaving;
        if (this.#held === 0) this.cut(undefined);
        return;
      }
      const payload = payloadBytes(request, this.style);
      if (extended && payload > LARGE_BYTES_MAX) {
        return this.cut("its payload is larger than any may be");
      }
      // A large request waits for those before it, and those after it for it.
      const room = this.#held < (this.#isLarge() ? 1 : host.fairShare);
      const slot = room ? host.requests.take(host.owner) : -1;
      if (slot < 0) return host.stall(this);
      this.#held++;
      this.start += headerBytes;
      if (!this.#begin(slot, payload)) return;
    }
    this.receive();
  }

  #goOnWithLarge() {
    if (!this.#large.wantsSlot) return;
    const host = this.host, slot = host.requests.take(host.owner);
    if (slot < 0) return host.stall(this);
    this.#held++;
    host.requests.session[slot] = this.index;
    this.#large.goOn(slot);
  }

  /** True for what fits no slot and may still be asked. */
  #isLarge(): boolean {
    const { length, type } = this.#request;
    return length > this.host.requests.maxIo && !this.sizesAgreed &&
      (type === NBD_CMD.read || type === NBD_CMD.write || type === NBD_CMD.cache);
  }

  /** Hands the parsed request on. @param payload bytes that follow it. @returns false when the next one has to wait. */
  #begin(slot: number, payload: number): boolean {
    const request = this.#request, requests = this.host.requests;
    requests.session[slot] = this.index;
    requests.cookieHigh[slot] = request.cookieHigh;
    requests.cookieLow[slot] = request.cookieLow;
    requests.at[slot] = request.at;
    requests.length[slot] = request.length;
    requests.flags[slot] = operationFlags(request.type, request.flags);
    const code = operationCode(request.type);
    requests.code[slot] = code < 0 ? OPERATION.flush : code;
    const refusal = this.#refusal(code, payload);
    if (refusal !== 0) {
      this.skipBytes = payload;
      this.#refuse(slot, refusal);
      return true;
    }
    if (code <= OPERATION.write && request.length > requests.maxIo) {
      this.#large.begin(slot, request);
      return false;
    }
    if (payload > 0) return this.#takePayload(slot, payload);
    this.#submit(slot);
    return true;
  }

  /** What the volume cannot judge: commands, flags, this session's rights, and the slot's size. */
  #refusal(code: number, payload: number): number {
    const { flags, type, length } = this.#request, { maxIo } = this.host.requests;
    if (code < 0 || (flags !== 0 && !flagsFit(type, flags, this.style))) return NBD_ERROR.invalid;
    if (payload > maxIo && code !== OPERATION.write) return NBD_ERROR.invalid;
    const changes = code !== OPERATION.read && code !== OPERATION.flush &&
      code !== SESSION_CODE.blockStatus;
    if (changes && this.readOnly) return NBD_ERROR.permission;
    if (code > OPERATION.write || length <= maxIo) return 0;
    return this.sizesAgreed ? NBD_ERROR.invalid : this.#large.refusal(this.#request);
  }

  #refuse(slot: number, error: number) {
    this.host.requests.errno[slot] = error;
    this.#reply(slot);
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
    this.#payloadLength = length;
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
      this.#payloadLength - this.#payloadBytes,
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
    this.#ticksIdle = 0;
    this.#payloadBytes += result;
    if (this.#payloadBytes < this.#payloadLength) return this.#receivePayload();
    this.#payloadSlot = -1;
    this.#submit(slot);
    this.parse();
  }

  #submit(slot: number) {
    this.#submitted++;
    if (this.host.requests.code[slot] !== SESSION_CODE.blockStatus) return this.volume.submit(slot);
    const payload = payloadBytes(this.#request, this.style);
    const refusal = this.#status.start(slot, this.#request.flags, payload);
    if (refusal === 0) return;
    this.#submitted--;
    this.#refuse(slot, refusal);
  }

  /** The volume is done with a slot of this session. */
  onCompleted(slot: number): void {
    this.#submitted--;
    if (!this.alive) {
      this.#release(slot);
      return this.#settle();
    }
    if (this.#large.active) this.#large.partDone(slot);
    else this.#reply(slot);
  }

  #reply(slot: number) {
    const { requests } = this.host;
    const hasData = requests.errno[slot] === 0 &&
      requests.code[slot] === OPERATION.read &&
      ((requests.flags[slot] as number) & QUIET_READ) === 0;
    const dataBytes = hasData ? requests.length[slot] as number : 0;
    this.#send(slot, this.host.replies.header(slot, this.style, dataBytes), dataBytes);
  }

  #send(slot: number, headerBytes: number, dataBytes: number) {
    const address = this.host.requests.dataAddress(slot) - headerBytes;
    this.sender.queue(address, headerBytes + dataBytes, slot);
    this.host.replyWaits(this);
  }

  // ---- For block status and large requests, off the hot path ----

  wake(): void {
    this.host.wake();
  }

  statusDone(slot: number): void {
    this.#submitted--;
    if (!this.alive) {
      this.#release(slot);
      return this.#settle();
    }
    const { requests, replies } = this.host, { style } = this;
    const payload = requests.length[slot] as number;
    if (payload === 0) return this.#reply(slot);
    this.#send(slot, replies.statusHeader(slot, style, payload), payload);
  }

  takePart(slot: number, length: number): void {
    this.#takePayload(slot, length);
  }

  submitPart(slot: number): void {
    this.#submit(slot);
  }

  changeSlot(slot: number): void {
    this.#release(slot);
    this.host.stall(this);
    this.host.unstall();
  }

  sendPart(slot: number, headerBytes: number, dataBytes: number): void {
    this.#send(slot, headerBytes, dataBytes);
  }

  replyPart(slot: number): void {
    this.#reply(slot);
  }

  skipPayload(length: number): void {
    this.skipBytes = length;
  }

  largeEnded(): void {
    this.host.stall(this);
    this.host.unstall();
  }

  giveUp(slot: number, reason: string): void {
    this.#release(slot);
    this.cut(reason);
  }

  /** Queues bytes of negotiation; the memory stays untouched until `negotiationSent`. */
  sendNegotiation(address: number, length: number): void {
    this.sender.queue(address, length, NEGOTIATION);
    this.host.replyWaits(this);
  }

  onSent(tag: number): void {
    if (tag === NEGOTIATION) return this.host.negotiationSent(this);
    this.#ticksIdle = 0;
    if (this.#large.active && !this.#large.partSent(tag)) return;
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
