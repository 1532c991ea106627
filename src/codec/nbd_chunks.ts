/**
 * NBD's reply chunks: the headers of structured and of extended replies, and the payloads of data, holes and
 * errors, read and written in place for the hot path. All integers are big-endian. Source: doc/proto.md of
 * the NetworkBlockDevice project, "Structured reply chunk message", "Structured reply types", and "Extended
 * reply chunk message" of the EXTENDED_HEADERS extension.
 *
 * A reply is one chunk or more with the request's cookie; the last carries NBD_CHUNK_FLAG.done. With
 * structured replies a command other than a read may still be answered simply; with extended headers every
 * answer is made of extended chunks.
 */
import { NBD_STRING_BYTES_MAX } from "./nbd.ts";

const NBD_CHUNK_MAGIC = 0x668e33ef;
const NBD_EXTENDED_CHUNK_MAGIC = 0x6e8a278c;
export const NBD_CHUNK_BYTES = 20;
export const NBD_EXTENDED_CHUNK_BYTES = 32;
/** What stands before the bytes of a data chunk: their offset in the export. */
export const NBD_DATA_OFFSET_BYTES = 8;
export const NBD_HOLE_BYTES = 12;
/** Of an error chunk without a message; NBD_CHUNK_ERROR_AT_BYTES where it names an offset. */
export const NBD_CHUNK_ERROR_BYTES = 6;
export const NBD_CHUNK_ERROR_AT_BYTES = 14;

/** "Structured reply flags". */
export const NBD_CHUNK_FLAG = { done: 1 << 0 } as const;

/** "Structured reply types". */
export const NBD_CHUNK = {
  none: 0,
  offsetData: 1,
  offsetHole: 2,
  blockStatus: 5,
  /** Instead of `blockStatus` with extended headers. */
  blockStatusExtended: 6,
  error: 0x8001,
  errorOffset: 0x8002,
} as const;

const TWO_32 = 4294967296;

/** A chunk's header, as a record that is used over and over. */
export interface NbdChunk {
  /** NBD_CHUNK_FLAG bits. */
  flags: number;
  /** Of NBD_CHUNK; from 0x8000 on it is an error, known or not. */
  type: number;
  cookieHigh: number;
  cookieLow: number;
  /** The request's offset; only extended chunks carry it. */
  at: number;
  /** Bytes of payload after the header. */
  length: number;
}

/** Writes the NBD_CHUNK_BYTES of a structured chunk's header. Positional for the hot path. */
export function encodeChunk(
  view: DataView,
  offset: number,
  type: number,
  flags: number,
  cookieHigh: number,
  cookieLow: number,
  length: number,
): void {
  view.setUint32(offset, NBD_CHUNK_MAGIC);
  view.setUint16(offset + 4, flags);
  view.setUint16(offset + 6, type);
  view.setUint32(offset + 8, cookieHigh);
  view.setUint32(offset + 12, cookieLow);
  view.setUint32(offset + 16, length);
}

/** Reads a structured chunk's header, all of it there; leaves `at`. @returns false for a wrong magic number. */
export function decodeChunk(view: DataView, offset: number, into: NbdChunk): boolean {
  if (view.getUint32(offset) !== NBD_CHUNK_MAGIC) return false;
  into.flags = view.getUint16(offset + 4);
  into.type = view.getUint16(offset + 6);
  into.cookieHigh = view.getUint32(offset + 8);
  into.cookieLow = view.getUint32(offset + 12);
  into.length = view.getUint32(offset + 16);
  return true;
}

/** Writes the NBD_EXTENDED_CHUNK_BYTES of an extended chunk's header. Positional for the hot path. */
export function encodeExtendedChunk(
  view: DataView,
  offset: number,
  type: number,
  flags: number,
  cookieHigh: number,
  cookieLow: number,
  at: number,
  length: number,
): void {
  view.setUint32(offset, NBD_EXTENDED_CHUNK_MAGIC);
  view.setUint16(offset + 4, flags);
  view.setUint16(offset + 6, type);
  view.setUint32(offset + 8, cookieHigh);
  view.setUint32(offset + 12, cookieLow);
  view.setUint32(offset + 16, at / TWO_32);
  view.setUint32(offset + 20, at % TWO_32);
  view.setUint32(offset + 24, length / TWO_32);
  view.setUint32(offset + 28, length % TWO_32);
}

/** Reads an extended chunk's header, all of it there. @returns false for a wrong magic number. */
export function decodeExtendedChunk(view: DataView, offset: number, into: NbdChunk): boolean {
  if (view.getUint32(offset) !== NBD_EXTENDED_CHUNK_MAGIC) return false;
  into.flags = view.getUint16(offset + 4);
  into.type = view.getUint16(offset + 6);
  into.cookieHigh = view.getUint32(offset + 8);
  into.cookieLow = view.getUint32(offset + 12);
  into.at = view.getUint32(offset + 16) * TWO_32 + view.getUint32(offset + 20);
  into.length = view.getUint32(offset + 24) * TWO_32 + view.getUint32(offset + 28);
  return true;
}

/** Writes what stands before a data chunk's bytes. @param at where in the export they come from. */
export function encodeDataOffset(view: DataView, offset: number, at: number): void {
  view.setUint32(offset, at / TWO_32);
  view.setUint32(offset + 4, at % TWO_32);
}

/** Reads the NBD_DATA_OFFSET_BYTES before a data chunk's bytes, all of them there. */
export function decodeDataOffset(view: DataView, offset: number): number {
  return view.getUint32(offset) * TWO_32 + view.getUint32(offset + 4);
}

/** A run of zeros in an answer to a read, as a record that is used over and over. */
export interface NbdHole {
  at: number;
  length: number;
}

/** Writes the NBD_HOLE_BYTES of a hole chunk's payload. */
export function encodeHole(view: DataView, offset: number, at: number, length: number): void {
  encodeDataOffset(view, offset, at);
  view.setUint32(offset + 8, length);
}

/** Reads a hole chunk's payload, all of it there. */
export function decodeHole(view: DataView, offset: number, into: NbdHole): void {
  into.at = decodeDataOffset(view, offset);
  into.length = view.getUint32(offset + 8);
}

/**
 * Writes an error chunk's payload: NBD_CHUNK_ERROR_BYTES and the message.
 * @param error of NBD_ERROR, not 0. @param message UTF-8, at most NBD_STRING_BYTES_MAX bytes.
 * @returns bytes written.
 */
export function encodeChunkError(
  view: DataView,
  offset: number,
  error: number,
  message: Uint8Array,
): number {
  view.setUint32(offset, error);
  view.setUint16(offset + 4, message.length);
  // Byte by byte: a sentence, and no view of it per reply.
  for (let i = 0; i < message.length; i++) view.setUint8(offset + 6 + i, message[i] as number);
  return NBD_CHUNK_ERROR_BYTES + message.length;
}

/** Writes the payload of an error chunk that names where it happened. @returns bytes written. */
export function encodeChunkErrorAt(
  view: DataView,
  offset: number,
  error: number,
  message: Uint8Array,
  at: number,
): number {
  const written = encodeChunkError(view, offset, error, message);
  encodeDataOffset(view, offset + written, at);
  return written + NBD_DATA_OFFSET_BYTES;
}

/** What an error chunk says. */
export interface NbdChunkError {
  readonly error: number;
  readonly message: string;
}

/**
 * The payload of any error chunk: all begin alike, so this reads also those of unknown types.
 * @returns undefined when bytes are missing, the message is longer than them or than a string may be, or
 * the error is none.
 */
export function decodeChunkError(payload: Uint8Array): NbdChunkError | undefined {
  if (payload.length < NBD_CHUNK_ERROR_BYTES) return undefined;
  const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
  const error = view.getUint32(0), messageBytes = view.getUint16(4);
  const end = NBD_CHUNK_ERROR_BYTES + messageBytes;
  if (error === 0 || messageBytes > NBD_STRING_BYTES_MAX || end > payload.length) return undefined;
  const message = new TextDecoder().decode(payload.subarray(NBD_CHUNK_ERROR_BYTES, end));
  return { error, message };
}

/** The payload of an error chunk that names an offset. @returns undefined as `decodeChunkError`. */
export function decodeChunkErrorAt(
  payload: Uint8Array,
): NbdChunkError & { readonly at: number } | undefined {
  const decoded = decodeChunkError(payload);
  if (!decoded || payload.length < NBD_CHUNK_ERROR_AT_BYTES) return undefined;
  const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
  const end = NBD_CHUNK_ERROR_BYTES + view.getUint16(4);
  if (end + NBD_DATA_OFFSET_BYTES > payload.length) return undefined;
  return { ...decoded, at: decodeDataOffset(view, end) };
}
