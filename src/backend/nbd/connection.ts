/**
 * One NBD connection in transmission phase, seen from the client: requests leave in batches, replies are
 * read by `NbdReplies`. The same record serves one connection after the other. Hot path: no await, no
 * throw, and no allocation per request.
 *
 * Faults: a lost or broken connection is reported once by `connectionLost`; `connectionEnded` follows when
 * the kernel uses neither buffers nor payloads any more: only then may they be used for something else.
 */
import { assert, errnoText } from "../../core/mod.ts";
import {
  encodeExtendedRequest,
  encodeRequest,
  NBD_CMD,
  NBD_CMD_FLAG,
  NBD_EXTENDED_REQUEST_BYTES,
  NBD_REQUEST_BYTES,
} from "../../codec/mod.ts";
import {
  allocateMemory,
  closeFile,
  type GatherEvents,
  GatherSender,
  type Memory,
  type Ring,
  shutdownSocket,
  unmapMemory,
} from "../../sys/mod.ts";
import { FRAMING, type NbdOffer } from "./offer.ts";
import type { Piece } from "./piece.ts";
import { NbdReplies, type NbdReplyEvents, WANTS } from "./replies.ts";
import type { NbdRequests } from "./requests.ts";

const HEADER_STRIDE = 32;
const HEADER = -1, GOODBYE = -2;
const EINTR = -4, EAGAIN = -11;

export interface NbdConnectionEvents extends NbdReplyEvents {
  /** There may be room to send again. */
  onRoom(): void;
  connectionLost(reason: string): void;
  connectionEnded(): void;
}

export class NbdConnection implements GatherEvents {
  readonly #ring: Ring;
  readonly #events: NbdConnectionEvents;
  readonly #replies: NbdReplies;
  /** One per cookie, the status request's among them, and the farewell's. */
  readonly #headers: Memory;
  readonly #headersView: DataView;
  readonly #sender: GatherSender;
  readonly #receiveKind: number;
  readonly #straightKind: number;
  readonly #cancelKind: number;
  readonly #sendKind: number;
  readonly #goodbyeHeader: number;
  readonly #piecesMax: number;
  #fd = -1;
  #open = false;
  #extended = false;
  #ringOperations = 0;

  /** @param lane the connection's number among those of its backend. */
  constructor(ring: Ring, requests: NbdRequests, lane: number, events: NbdConnectionEvents) {
    this.#ring = ring;
    this.#events = events;
    this.#replies = new NbdReplies(requests, lane, events);
    this.#goodbyeHeader = requests.statusCookie + 1;
    this.#headers = allocateMemory((this.#goodbyeHeader + 1) * HEADER_STRIDE);
    this.#headersView = new DataView(this.#headers.bytes.buffer);
    this.#receiveKind = ring.register((_, result) => this.#onReceived(result));
    this.#straightKind = ring.register((_, result) => this.#onStraight(result));
    this.#cancelKind = ring.register(() => this.#finished());
    this.#sendKind = ring.register((_, result) => this.#onSendCompleted(result));
    this.#piecesMax = 2 * requests.capacity + 4;
    this.#sender = new GatherSender(ring, this.#sendKind, 0, this.#piecesMax, this);
  }

  get open(): boolean {
    return this.#open;
  }

  /** False while so much waits to be sent that a request, a status request and a farewell would not fit. */
  get hasRoom(): boolean {
    return this.#open && this.#sender.waiting <= this.#piecesMax - 4;
  }

  /** Takes over a socket in transmission phase. */
  start(fd: number, offer: NbdOffer): void {
    assert(this.#fd < 0, "the connection before has not ended");
    this.#fd = this.#sender.fd = fd;
    this.#open = true;
    this.#extended = offer.framing === FRAMING.extended;
    this.#replies.begin(offer.framing, offer.allocationId);
    this.#receive();
  }

  /** Queues a request; `flush` sends it. */
  queue(cookie: number, generation: number, piece: Piece): void {
    const { type, flags, at, length, payload } = piece;
    const offset = cookie * HEADER_STRIDE, view = this.#headersView;
    const isWrite = type === NBD_CMD.write;
    if (this.#extended) {
      const all = isWrite ? flags | NBD_CMD_FLAG.payloadLength : flags;
      encodeExtendedRequest(view, offset, type, all, generation, cookie, at, length);
    } else encodeRequest(view, offset, type, flags, generation, cookie, at, length);
    this.#queueHeader(offset);
    if (isWrite) this.#sender.queue(payload, length, HEADER);
  }

  #queueHeader(offset: number, tag = HEADER) {
    const bytes = this.#extended ? NBD_EXTENDED_REQUEST_BYTES : NBD_REQUEST_BYTES;
    this.#sender.queue(this.#headers.address + offset, bytes, tag);
  }

  flush(): void {
    if (this.#open) this.#sender.flush();
  }

  /** Tells the server that the client leaves, then ends. */
  sayGoodbye(): void {
    if (!this.#open) return;
    const offset = this.#goodbyeHeader * HEADER_STRIDE, view = this.#headersView;
    if (this.#extended) encodeExtendedRequest(view, offset, NBD_CMD.disconnect, 0, 0, 0, 0, 0);
    else encodeRequest(view, offset, NBD_CMD.disconnect, 0, 0, 0, 0, 0);
    this.#queueHeader(offset, GOODBYE);
    this.#sender.flush();
  }

  /** Ends the connection; `connectionEnded` follows. */
  end(): void {
    if (!this.#open) return;
    this.#open = false;
    this.#replies.stop();
    shutdownSocket(this.#fd);
    this.#ringOperations++;
    this.#ring.cancelFd(this.#fd, this.#cancelKind, 0);
  }

  /** Gives memory and kinds back, for good; only when it has ended. */
  release(): void {
    assert(this.#fd < 0, "a connection is released that has not ended");
    this.#replies.release();
    this.#sender.release();
    unmapMemory(this.#headers);
    const kinds = [this.#receiveKind, this.#straightKind, this.#cancelKind, this.#sendKind];
    for (const kind of kinds) this.#ring.unregister(kind);
  }

  #lose(reason: string) {
    if (!this.#open) return;
    this.end();
    this.#events.connectionLost(reason);
  }

  #finished() {
    this.#ringOperations--;
    this.#settle();
  }

  #settle() {
    if (this.#open || this.#fd < 0 || this.#ringOperations > 0 || !this.#sender.idle) return;
    this.#sender.drop(() => {});
    closeFile(this.#fd);
    this.#fd = this.#sender.fd = -1;
    this.#events.connectionEnded();
  }

  #goOn(wants: number) {
    if (wants === WANTS.more) this.#receive();
    else if (wants === WANTS.straight) this.#receiveStraight();
    else this.#lose(this.#replies.reason);
  }

  #receive() {
    if (!this.#open) return;
    const replies = this.#replies, address = replies.makeRoom();
    this.#ringOperations++;
    this.#ring.recv(this.#fd, address, replies.room, false, this.#receiveKind, 0);
  }

  #onReceived(result: number) {
    this.#ringOperations--;
    if (!this.#open) return this.#settle();
    if (result === EINTR || result === EAGAIN) return this.#receive();
    if (result <= 0) return this.#lose(closedText(result));
    this.#goOn(this.#replies.received(result));
  }

  #receiveStraight() {
    const { straightAddress, straightBytes } = this.#replies;
    this.#ringOperations++;
    this.#ring.recv(this.#fd, straightAddress, straightBytes, true, this.#straightKind, 0);
  }

  #onStraight(result: number) {
    this.#ringOperations--;
    if (!this.#open) return this.#settle();
    if (result === EINTR || result === EAGAIN) return this.#receiveStraight();
    if (result <= 0) return this.#lose(closedText(result));
    this.#goOn(this.#replies.receivedStraight(result));
  }

  #onSendCompleted(result: number) {
    this.#sender.onCompletion(this.#open ? result : Math.min(result, -1));
    if (this.#open) this.#events.onRoom();
    else this.#settle();
  }

  onSent(tag: number): void {
    if (tag === GOODBYE) this.end();
  }

  onBroken(errno: number): void {
    this.#lose(errnoText(errno));
  }
}

function closedText(result: number): string {
  return result === 0 ? "it closed the connection" : errnoText(result);
}
