/**
 * What an NBD server answers, read from a stream: simple replies, structured and extended chunks. Data goes
 * where its request wants it, from the buffer or, when much is still to come, straight from the socket.
 * Chunks of several requests may come interleaved. Hot path: no await, no throw, and no allocation per
 * reply, but for the foreign call that copies data which came with its header.
 *
 * Faults: a server that breaks the protocol (a wrong magic number, an answer to nothing, data outside of what
 * was asked for, a read's answer with bytes missing) ends the connection; no byte of it is guessed.
 */
import {
  decodeChunk,
  decodeChunkError,
  decodeDataOffset,
  decodeExtendedChunk,
  decodeHole,
  decodeSimpleReply,
  NBD_CHUNK,
  NBD_CHUNK_BYTES,
  NBD_CHUNK_ERROR_BYTES,
  NBD_CHUNK_FLAG,
  NBD_DATA_OFFSET_BYTES,
  NBD_EXTENDED_CHUNK_BYTES,
  NBD_HOLE_BYTES,
  NBD_SIMPLE_REPLY_BYTES,
  NBD_SIMPLE_REPLY_MAGIC,
  type NbdChunk,
  type NbdHole,
  type NbdSimpleReply,
} from "../../codec/mod.ts";
import { allocateMemory, copyMemory, type Memory, unmapMemory } from "../../sys/mod.ts";
import { FRAMING } from "./offer.ts";
import type { NbdRequests } from "./requests.ts";
import { zeroMemory } from "../zeros.ts";

const RECEIVE_BYTES = 192 * 1024;
/** From this size on, data goes straight to where it belongs and receives into the buffer stay short. */
const LARGE_PAYLOAD_BYTES = 32 * 1024;
const SHORT_RECEIVE_BYTES = 4096;
/** Of an error chunk: its message is at most 4096 bytes. */
const ERROR_BYTES_MAX = 8192;
const TWO_32 = 4294967296;

/**
 * What the reader wants: `next` it goes on by itself, `more` bytes in its buffer, the rest of a payload
 * `straight` to its place; `broken` there is no way on, see `reason`.
 */
export const WANTS = { next: 0, more: 1, straight: 2, broken: 3 } as const;

export interface NbdReplyEvents {
  /** A request is answered, data and all. `error` is the server's, 0 for success. */
  onReply(cookie: number, error: number): void;
  /** The next run of bytes of the range that the status request asked about. @param flags of the context. */
  onExtent(length: number, flags: number): void;
}

export class NbdReplies {
  /** Where the rest of a payload goes, and how much it is. */
  straightAddress = 0;
  straightBytes = 0;
  /** Why it is broken, for people. */
  reason = "";
  readonly #requests: NbdRequests;
  readonly #lane: number;
  readonly #events: NbdReplyEvents;
  readonly #buffer: Memory = allocateMemory(RECEIVE_BYTES);
  readonly #view: DataView = new DataView(this.#buffer.bytes.buffer);
  readonly #simple: NbdSimpleReply = { error: 0, cookieHigh: 0, cookieLow: 0 };
  readonly #chunk: NbdChunk = { flags: 0, type: 0, cookieHigh: 0, cookieLow: 0, at: 0, length: 0 };
  readonly #hole: NbdHole = { at: 0, length: 0 };
  #framing: number = FRAMING.simple;
  #contextId: number | undefined;
  #stopped = true;
  #start = 0;
  #end = 0;
  #largePayloads = false;
  /** Whose payload goes straight to its place, and the flags of its chunk. */
  #straightFor = 0;
  #straightFlags = 0;
  /** Of a block status chunk: bytes of extents to come, of one extent, and whether its context is ours. */
  #extentsLeft = 0;
  #extentBytes = 8;
  #extentsOurs = false;
  #extentsFlags = 0;

  constructor(requests: NbdRequests, lane: number, events: NbdReplyEvents) {
    this.#requests = requests;
    this.#lane = lane;
    this.#events = events;
  }

  /** A new connection. @param contextId of the metadata context that `onExtent` is about. */
  begin(framing: number, contextId: number | undefined): void {
    this.#framing = framing;
    this.#contextId = contextId;
    this.#stopped = this.#largePayloads = false;
    this.#start = this.#end = this.#extentsLeft = 0;
  }

  /** The connection ends: nothing more is read from the buffer. */
  stop(): void {
    this.#stopped = true;
  }

  /** Gives the memory back. */
  release(): void {
    unmapMemory(this.#buffer);
  }

  /** Makes room in the buffer. @returns the address to receive `room` bytes at. */
  makeRoom(): number {
    if (this.#start > 0) {
      this.#buffer.bytes.copyWithin(0, this.#start, this.#end);
      this.#end -= this.#start;
      this.#start = 0;
    }
    return this.#buffer.address + this.#end;
  }

  get room(): number {
    const room = RECEIVE_BYTES - this.#end;
    return this.#largePayloads ? Math.min(room, SHORT_RECEIVE_BYTES) : room;
  }

  /** Bytes have come into the buffer. @returns of WANTS. */
  received(count: number): number {
    this.#end += count;
    return this.#read();
  }

  /** Bytes of a payload have come straight to their place. @returns of WANTS. */
  receivedStraight(count: number): number {
    this.straightAddress += count;
    this.straightBytes -= count;
    if (this.straightBytes > 0) return WANTS.straight;
    const wants = this.#finish(this.#straightFor, this.#straightFlags);
    return wants === WANTS.next ? this.#read() : wants;
  }

  #read(): number {
    while (!this.#stopped) {
      const wants = this.#extentsLeft > 0 ? this.#takeExtents() : this.#takeReply();
      if (wants !== WANTS.next) return wants;
    }
    return WANTS.more;
  }

  #takeReply(): number {
    const view = this.#view, start = this.#start, there = this.#end - start;
    if (there < NBD_SIMPLE_REPLY_BYTES) return WANTS.more;
    if (this.#framing !== FRAMING.extended && view.getUint32(start) === NBD_SIMPLE_REPLY_MAGIC) {
      return this.#takeSimple();
    }
    if (this.#framing === FRAMING.simple) return this.#broken("its reply has a wrong magic number");
    const extended = this.#framing === FRAMING.extended, chunk = this.#chunk;
    const header = extended ? NBD_EXTENDED_CHUNK_BYTES : NBD_CHUNK_BYTES;
    if (there < header) return WANTS.more;
    const known = extended
      ? decodeExtendedChunk(view, start, chunk)
      : decodeChunk(view, start, chunk);
    if (!known) return this.#broken("its reply has a wrong magic number");
    if (!this.#requests.isAwaited(this.#lane, chunk.cookieHigh, chunk.cookieLow)) {
      return this.#broken("it answered a request that was not asked");
    }
    return this.#takeChunk(header, there - header);
  }

  #takeSimple(): number {
    const reply = this.#simple, requests = this.#requests;
    decodeSimpleReply(this.#view, this.#start, reply);
    const { error, cookieLow: cookie } = reply;
    if (!requests.isAwaited(this.#lane, reply.cookieHigh, cookie)) {
      return this.#broken("it answered a request that was not asked");
    }
    this.#start += NBD_SIMPLE_REPLY_BYTES;
    if (error !== 0) {
      this.#events.onReply(cookie, error);
      return WANTS.next;
    }
    const expects = requests.expects[cookie] as number;
    if (expects === 0) return this.#finish(cookie, NBD_CHUNK_FLAG.done);
    if (this.#framing !== FRAMING.simple) return this.#broken("it answered a read without chunks");
    return this.#takePayload(
      cookie,
      requests.address[cookie] as number,
      expects,
      NBD_CHUNK_FLAG.done,
    );
  }

  /** @param header bytes of it. @param there bytes that have come of what follows it. */
  #takeChunk(header: number, there: number): number {
    const { type, flags, cookieLow: cookie, length } = this.#chunk;
    switch (type) {
      case NBD_CHUNK.none:
        if (length !== 0) return this.#malformed();
        this.#start += header;
        return this.#finish(cookie, flags);
      case NBD_CHUNK.offsetData:
        return this.#takeData(header, there);
      case NBD_CHUNK.offsetHole:
        return this.#takeHole(header, there);
      case NBD_CHUNK.blockStatus:
      case NBD_CHUNK.blockStatusExtended:
        return this.#beginExtents(header, there);
      default:
        return type < NBD_CHUNK.error ? this.#malformed() : this.#takeError(header, there);
    }
  }

  #takeData(header: number, there: number): number {
    const { flags, cookieLow: cookie, length } = this.#chunk;
    if (length <= NBD_DATA_OFFSET_BYTES) return this.#malformed();
    if (there < NBD_DATA_OFFSET_BYTES) return WANTS.more;
    const at = decodeDataOffset(this.#view, this.#start + header);
    const bytes = length - NBD_DATA_OFFSET_BYTES;
    if (!this.#wasAsked(cookie, at, bytes)) {
      return this.#broken("it sent data that was not asked for");
    }
    this.#start += header + NBD_DATA_OFFSET_BYTES;
    return this.#takePayload(cookie, this.#addressOf(cookie, at), bytes, flags);
  }

  #takeHole(header: number, there: number): number {
    const { flags, cookieLow: cookie, length } = this.#chunk, hole = this.#hole;
    if (length !== NBD_HOLE_BYTES) return this.#malformed();
    if (there < NBD_HOLE_BYTES) return WANTS.more;
    decodeHole(this.#view, this.#start + header, hole);
    if (!this.#wasAsked(cookie, hole.at, hole.length)) {
      return this.#broken("it sent a hole that was not asked for");
    }
    zeroMemory(this.#addressOf(cookie, hole.at), hole.length);
    this.#count(cookie, hole.length);
    this.#start += header + NBD_HOLE_BYTES;
    return this.#finish(cookie, flags);
  }

  /** An error of a request, whose other chunks may follow. */
  #takeError(header: number, there: number): number {
    const { flags, cookieLow: cookie, length } = this.#chunk, requests = this.#requests;
    if (length < NBD_CHUNK_ERROR_BYTES || length > ERROR_BYTES_MAX) return this.#malformed();
    if (there < length) return WANTS.more;
    const from = this.#start + header;
    const said = decodeChunkError(this.#buffer.bytes.subarray(from, from + length));
    if (!said) return this.#malformed();
    if (requests.error[cookie] === 0) requests.error[cookie] = said.error;
    this.#start += header + length;
    return this.#finish(cookie, flags);
  }

  /** Extents may be many more than the buffer holds: they are taken one by one. */
  #beginExtents(header: number, there: number): number {
    const { type, flags, cookieLow: cookie, length } = this.#chunk;
    const extended = type === NBD_CHUNK.blockStatusExtended;
    const before = extended ? 8 : 4, each = extended ? 16 : 8;
    const fits = length > before && (length - before) % each === 0;
    if (cookie !== this.#requests.statusCookie || !fits) return this.#malformed();
    if (there < before) return WANTS.more;
    this.#extentsOurs = this.#view.getUint32(this.#start + header) === this.#contextId;
    this.#extentsLeft = length - before;
    this.#extentBytes = each;
    this.#extentsFlags = flags;
    this.#start += header + before;
    return WANTS.next;
  }

  #takeExtents(): number {
    const view = this.#view, each = this.#extentBytes;
    while (this.#extentsLeft > 0 && this.#end - this.#start >= each) {
      const at = this.#start;
      const length = each === 8
        ? view.getUint32(at)
        : view.getUint32(at) * TWO_32 + view.getUint32(at + 4);
      const flags = each === 8 ? view.getUint32(at + 4) : view.getUint32(at + 12);
      if (length === 0) return this.#malformed();
      this.#start += each;
      this.#extentsLeft -= each;
      if (this.#extentsOurs) this.#events.onExtent(length, flags);
    }
    if (this.#extentsLeft > 0) return WANTS.more;
    return this.#finish(this.#requests.statusCookie, this.#extentsFlags);
  }

  #takePayload(cookie: number, address: number, bytes: number, flags: number): number {
    this.#largePayloads = bytes >= LARGE_PAYLOAD_BYTES;
    const there = Math.min(this.#end - this.#start, bytes);
    if (there > 0) copyMemory(address, this.#buffer.address + this.#start, there);
    this.#start += there;
    this.#count(cookie, bytes);
    if (there === bytes) return this.#finish(cookie, flags);
    this.straightAddress = address + there;
    this.straightBytes = bytes - there;
    this.#straightFor = cookie;
    this.#straightFlags = flags;
    return WANTS.straight;
  }

  /** After a chunk: the last one of a request answers it. */
  #finish(cookie: number, flags: number): number {
    if ((flags & NBD_CHUNK_FLAG.done) === 0) return WANTS.next;
    const requests = this.#requests, error = requests.error[cookie] as number;
    if (error === 0 && requests.received[cookie] !== requests.expects[cookie]) {
      return this.#broken("its answer to a read lacks bytes");
    }
    this.#events.onReply(cookie, error);
    return WANTS.next;
  }

  #wasAsked(cookie: number, at: number, bytes: number): boolean {
    const requests = this.#requests, from = requests.at[cookie] as number;
    return at >= from && bytes > 0 && at + bytes <= from + (requests.expects[cookie] as number);
  }

  #addressOf(cookie: number, at: number): number {
    return (this.#requests.address[cookie] as number) + at - (this.#requests.at[cookie] as number);
  }

  #count(cookie: number, bytes: number) {
    this.#requests.received[cookie] = (this.#requests.received[cookie] as number) + bytes;
  }

  #malformed(): number {
    return this.#broken("its reply is malformed");
  }

  #broken(reason: string): number {
    this.reason = reason;
    return WANTS.broken;
  }
}
