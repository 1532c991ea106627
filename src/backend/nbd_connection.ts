/**
 * One NBD connection in transmission phase, seen from the client: requests leave in batches, simple replies
 * are parsed from a receive buffer, and the payload of a large read goes straight to where it belongs.
 * The same record serves one connection after the other. Hot path: no await, no throw, and no allocation
 * per request, but for the foreign call that copies a payload which came with its header.
 *
 * Faults: a lost or broken connection is reported once by `connectionLost`; `connectionEnded` follows when the kernel uses
 * neither buffers nor payloads any more: only then may they be used for something else.
 */
import { assert, errnoText } from "../core/mod.ts";
import {
  decodeSimpleReply,
  encodeRequest,
  NBD_CMD,
  NBD_REQUEST_BYTES,
  NBD_SIMPLE_REPLY_BYTES,
  type NbdSimpleReply,
} from "../codec/mod.ts";
import {
  allocateMemory,
  closeFile,
  copyMemory,
  type GatherEvents,
  GatherSender,
  type Memory,
  type Ring,
  shutdownSocket,
} from "../sys/mod.ts";

const RECEIVE_BYTES = 192 * 1024;
/** From this size on, payloads go straight to where they belong and receives into the buffer stay short. */
const LARGE_PAYLOAD_BYTES = 32 * 1024;
const SHORT_RECEIVE_BYTES = 4096;
const HEADER_STRIDE = 32;
const HEADER = -1, GOODBYE = -2;
const EINTR = -4, EAGAIN = -11;

export interface NbdConnectionEvents {
  /** Bytes of payload that a good reply with this cookie carries; -1 when nothing waits for it. */
  payloadBytes(cookieHigh: number, cookieLow: number): number;
  /** Where that payload goes. */
  payloadAddress(cookieLow: number): number;
  /** A reply is complete, payload and all. `error` is the server's, 0 for success. */
  onReply(cookieLow: number, error: number): void;
  /** There may be room to send again. */
  onRoom(): void;
  connectionLost(reason: string): void;
  connectionEnded(): void;
}

export class NbdConnection implements GatherEvents {
  readonly #ring: Ring;
  readonly #events: NbdConnectionEvents;
  readonly #headers: Memory;
  readonly #headersView: DataView;
  readonly #buffer: Memory = allocateMemory(RECEIVE_BYTES);
  readonly #bufferView: DataView;
  readonly #sender: GatherSender;
  readonly #receiveKind: number;
  readonly #payloadKind: number;
  readonly #cancelKind: number;
  readonly #reply: NbdSimpleReply = { error: 0, cookieHigh: 0, cookieLow: 0 };
  #fd = -1;
  #open = false;
  #start = 0;
  #end = 0;
  #ringOperations = 0;
  #largePayloads = false;
  /** Whose payload is being received directly; -1 for nobody's. */
  #payloadFor = -1;
  #payloadAt = 0;
  #payloadLeft = 0;

  /** @param cookies requests are numbered below this. */
  constructor(ring: Ring, readonly cookies: number, events: NbdConnectionEvents) {
    this.#ring = ring;
    this.#events = events;
    this.#headers = allocateMemory((cookies + 1) * HEADER_STRIDE);
    this.#headersView = new DataView(this.#headers.bytes.buffer);
    this.#bufferView = new DataView(this.#buffer.bytes.buffer);
    this.#receiveKind = ring.register((_, result) => this.#onReceived(result));
    this.#payloadKind = ring.register((_, result) => this.#onPayload(result));
    this.#cancelKind = ring.register(() => this.#finished());
    const sendKind = ring.register((_, result) => this.#onSendCompleted(result));
    this.#sender = new GatherSender(ring, sendKind, 0, 2 * cookies + 2, this);
  }

  get open(): boolean {
    return this.#open;
  }

  /** False while so much waits to be sent that a request would not fit. */
  get hasRoom(): boolean {
    return this.#open && this.#sender.waiting <= 2 * this.cookies - 2;
  }

  /** Takes over a socket in transmission phase. */
  start(fd: number): void {
    assert(this.#fd < 0, "the connection before has not ended");
    this.#fd = this.#sender.fd = fd;
    this.#open = true;
    this.#start = this.#end = 0;
    this.#largePayloads = false;
    this.#payloadFor = -1;
    this.#receive();
  }

  /** Queues a request; `flush` sends it. Positional for the hot path. @param payload address of a write's bytes. */
  queue(
    type: number,
    flags: number,
    cookieHigh: number,
    cookieLow: number,
    at: number,
    length: number,
    payload: number,
  ): void {
    const offset = cookieLow * HEADER_STRIDE;
    encodeRequest(this.#headersView, offset, type, flags, cookieHigh, cookieLow, at, length);
    this.#sender.queue(this.#headers.address + offset, NBD_REQUEST_BYTES, HEADER);
    if (type === NBD_CMD.write) this.#sender.queue(payload, length, HEADER);
  }

  flush(): void {
    if (this.#open) this.#sender.flush();
  }

  /** Tells the server that the client leaves, then ends. */
  sayGoodbye(): void {
    if (!this.#open) return;
    const offset = this.cookies * HEADER_STRIDE;
    encodeRequest(this.#headersView, offset, NBD_CMD.disconnect, 0, 0, 0, 0, 0);
    this.#sender.queue(this.#headers.address + offset, NBD_REQUEST_BYTES, GOODBYE);
    this.#sender.flush();
  }

  /** Ends the connection; `connectionEnded` follows. */
  end(): void {
    if (!this.#open) return;
    this.#open = false;
    shutdownSocket(this.#fd);
    this.#ringOperations++;
    this.#ring.cancelFd(this.#fd, this.#cancelKind, 0);
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

  #receive() {
    if (!this.#open) return;
    if (this.#start > 0) {
      this.#buffer.bytes.copyWithin(0, this.#start, this.#end);
      this.#end -= this.#start;
      this.#start = 0;
    }
    const room = RECEIVE_BYTES - this.#end;
    const length = this.#largePayloads ? Math.min(room, SHORT_RECEIVE_BYTES) : room;
    this.#ringOperations++;
    const address = this.#buffer.address + this.#end;
    this.#ring.recv(this.#fd, address, length, false, this.#receiveKind, 0);
  }

  #onReceived(result: number) {
    this.#ringOperations--;
    if (!this.#open) return this.#settle();
    if (result === EINTR || result === EAGAIN) return this.#receive();
    if (result <= 0) return this.#lose(closedText(result));
    this.#end += result;
    this.#parse();
  }

  #parse() {
    const reply = this.#reply, events = this.#events;
    while (this.#open && this.#end - this.#start >= NBD_SIMPLE_REPLY_BYTES) {
      if (!decodeSimpleReply(this.#bufferView, this.#start, reply)) {
        return this.#lose("its reply has a wrong magic number");
      }
      const { error, cookieLow } = reply;
      const payload = events.payloadBytes(reply.cookieHigh, cookieLow);
      if (payload < 0) return this.#lose("it answered a request that was not asked");
      this.#start += NBD_SIMPLE_REPLY_BYTES;
      if (error === 0 && payload > 0 && !this.#takePayload(cookieLow, payload)) return;
      events.onReply(cookieLow, error);
    }
    this.#receive();
  }

  /** @returns false when the rest of the payload is being received. */
  #takePayload(cookieLow: number, length: number): boolean {
    this.#largePayloads = length >= LARGE_PAYLOAD_BYTES;
    const there = Math.min(this.#end - this.#start, length);
    const address = this.#events.payloadAddress(cookieLow);
    copyMemory(address, this.#buffer.address + this.#start, there);
    this.#start += there;
    if (there === length) return true;
    this.#payloadFor = cookieLow;
    this.#payloadAt = address + there;
    this.#payloadLeft = length - there;
    this.#receivePayload();
    return false;
  }

  #receivePayload() {
    this.#ringOperations++;
    this.#ring.recv(this.#fd, this.#payloadAt, this.#payloadLeft, true, this.#payloadKind, 0);
  }

  #onPayload(result: number) {
    this.#ringOperations--;
    if (!this.#open) return this.#settle();
    if (result === EINTR || result === EAGAIN) return this.#receivePayload();
    if (result <= 0) return this.#lose(closedText(result));
    this.#payloadAt += result;
    this.#payloadLeft -= result;
    if (this.#payloadLeft > 0) return this.#receivePayload();
    const cookieLow = this.#payloadFor;
    this.#payloadFor = -1;
    this.#events.onReply(cookieLow, 0);
    this.#parse();
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
