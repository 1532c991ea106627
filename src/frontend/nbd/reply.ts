/**
 * Replies of an NBD session, written into the slot's headroom right in front of its data, so that header and
 * data leave as one piece. Hot path: nothing allocates; an error's sentence is encoded once.
 *
 * A read is answered by one chunk with its data, which is also the last; by more only where the request was
 * too large for a slot (`large.ts`). What has no data is answered simply unless the headers are extended:
 * a structured session may be, and it is four bytes less; its errors come as chunks, for their sentence.
 */
import {
  encodeChunk,
  encodeChunkError,
  encodeDataOffset,
  encodeExtendedChunk,
  encodeSimpleReply,
  NBD_CHUNK,
  NBD_CHUNK_BYTES,
  NBD_CHUNK_ERROR_BYTES,
  NBD_CHUNK_FLAG,
  NBD_DATA_OFFSET_BYTES,
  NBD_ERROR,
  NBD_EXTENDED_CHUNK_BYTES,
  NBD_SIMPLE_REPLY_BYTES,
  nbdErrorOf,
} from "../../codec/mod.ts";
import type { Requests } from "../../volume/mod.ts";

/** What a session's replies are made of, as negotiated. */
export const REPLY_STYLE = { simple: 0, structured: 1, extended: 2 } as const;

/** Writes replies into one slot arena. */
export class NbdReplies {
  /** @param arena a view of the arena's bytes. */
  constructor(readonly requests: Requests, readonly arena: DataView) {}

  /**
   * Writes the header of a reply to a slot that is done.
   * @param dataBytes bytes at the start of the slot's data that go with it: of a read, or 0.
   * @returns bytes of header, which end where the data begins.
   */
  header(slot: number, style: number, dataBytes: number): number {
    const error = this.requests.errno[slot] as number;
    if (style === REPLY_STYLE.simple) return this.simpleHeader(slot, nbdErrorOf(error));
    if (error !== 0) return this.#errorChunk(slot, style, nbdErrorOf(error));
    if (dataBytes > 0) {
      const at = this.requests.at[slot] as number;
      return this.dataHeader(slot, style, NBD_CHUNK_FLAG.done, at, at, dataBytes);
    }
    if (style === REPLY_STYLE.structured) return this.simpleHeader(slot, 0);
    return this.#last(slot, style, NBD_CHUNK.none, 0);
  }

  /** @param error of NBD_ERROR, or 0. */
  simpleHeader(slot: number, error: number): number {
    const { requests } = this;
    encodeSimpleReply(
      this.arena,
      requests.dataOffset(slot) - NBD_SIMPLE_REPLY_BYTES,
      error,
      requests.cookieHigh[slot] as number,
      requests.cookieLow[slot] as number,
    );
    return NBD_SIMPLE_REPLY_BYTES;
  }

  /** The header of a chunk of data. @param asked the request's offset. @param at the data's. */
  dataHeader(
    slot: number,
    style: number,
    flags: number,
    asked: number,
    at: number,
    dataBytes: number,
  ): number {
    const data = this.requests.dataOffset(slot);
    encodeDataOffset(this.arena, data - NBD_DATA_OFFSET_BYTES, at);
    const payload = NBD_DATA_OFFSET_BYTES + dataBytes;
    return NBD_DATA_OFFSET_BYTES + this.#chunk(
      slot,
      style,
      NBD_CHUNK.offsetData,
      flags,
      data - NBD_DATA_OFFSET_BYTES,
      asked,
      payload,
    );
  }

  /** The header of the only chunk of an answer to BLOCK_STATUS: its payload are the slot's first bytes. */
  statusHeader(slot: number, style: number, payload: number): number {
    const type = style === REPLY_STYLE.extended
      ? NBD_CHUNK.blockStatusExtended
      : NBD_CHUNK.blockStatus;
    return this.#last(slot, style, type, payload);
  }

  #last(slot: number, style: number, type: number, payload: number): number {
    const { requests } = this, asked = requests.at[slot] as number;
    const data = requests.dataOffset(slot);
    return this.#chunk(slot, style, type, NBD_CHUNK_FLAG.done, data, asked, payload);
  }

  #errorChunk(slot: number, style: number, error: number): number {
    const sentence = sentenceOf(error);
    const payload = NBD_CHUNK_ERROR_BYTES + sentence.length;
    const start = this.requests.dataOffset(slot) - payload;
    encodeChunkError(this.arena, start, error, sentence);
    const asked = this.requests.at[slot] as number;
    return payload +
      this.#chunk(slot, style, NBD_CHUNK.error, NBD_CHUNK_FLAG.done, start, asked, payload);
  }

  /** Writes a chunk's header so that it ends at `end`. @returns its bytes. */
  #chunk(
    slot: number,
    style: number,
    type: number,
    flags: number,
    end: number,
    asked: number,
    payload: number,
  ): number {
    const high = this.requests.cookieHigh[slot] as number;
    const low = this.requests.cookieLow[slot] as number;
    if (style === REPLY_STYLE.structured) {
      encodeChunk(this.arena, end - NBD_CHUNK_BYTES, type, flags, high, low, payload);
      return NBD_CHUNK_BYTES;
    }
    const start = end - NBD_EXTENDED_CHUNK_BYTES;
    encodeExtendedChunk(this.arena, start, type, flags, high, low, asked, payload);
    return NBD_EXTENDED_CHUNK_BYTES;
  }
}

const text = (sentence: string) => new TextEncoder().encode(sentence);

const SENTENCES: ReadonlyMap<number, Uint8Array> = new Map([
  [NBD_ERROR.permission, text("the export is read-only")],
  [NBD_ERROR.io, text("the storage failed")],
  [NBD_ERROR.noMemory, text("the server has no memory for it")],
  [
    NBD_ERROR.invalid,
    text("the request is out of bounds, too large, unknown, or has flags that do not fit"),
  ],
  [
    NBD_ERROR.noSpace,
    text("there is no room: it is beyond the export's end, or the store is full"),
  ],
  [NBD_ERROR.overflow, text("it is too large to be answered in one piece")],
  [NBD_ERROR.notSupported, text("it would be no faster than writing zeros")],
  [NBD_ERROR.shutdown, text("the export is being closed")],
]);
const NO_SENTENCE = new Uint8Array();

function sentenceOf(error: number): Uint8Array {
  return SENTENCES.get(error) ?? NO_SENTENCE;
}
