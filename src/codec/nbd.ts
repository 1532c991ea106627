/**
 * NBD: its numbers, requests (compact and extended) and simple replies, read and written in place for the
 * hot path. Reply chunks are in `nbd_chunks.ts`, negotiation in `nbd_negotiation.ts`, metadata contexts in
 * `nbd_contexts.ts`.
 * All integers are big-endian. Source: doc/proto.md of the NetworkBlockDevice project, with its
 * EXTENDED_HEADERS extension as QEMU 8.2 and libnbd 1.18 speak it; the section that each part follows is
 * named beside it.
 */

/** "Newstyle negotiation". */
export const NBD_MAGIC = 0x4e42444d41474943n;
export const NBD_OPTION_MAGIC = 0x49484156454f5054n;
export const NBD_REPLY_MAGIC = 0x0003e889045565a9n;
/** "Request message": compact and extended; "Simple reply message". */
const NBD_REQUEST_MAGIC = 0x25609513;
const NBD_EXTENDED_REQUEST_MAGIC = 0x21e41c71;
export const NBD_SIMPLE_REPLY_MAGIC = 0x67446698;

/** "Handshake flags" of the server and of the client: the same bits. */
export const NBD_HANDSHAKE = { fixedNewstyle: 1, noZeroes: 2 } as const;

/** "Transmission flags". */
export const NBD_FLAG = {
  hasFlags: 1 << 0,
  readOnly: 1 << 1,
  sendFlush: 1 << 2,
  sendFua: 1 << 3,
  rotational: 1 << 4,
  sendTrim: 1 << 5,
  sendWriteZeroes: 1 << 6,
  /** Only with structured replies. */
  sendDf: 1 << 7,
  canMultiConn: 1 << 8,
  sendCache: 1 << 10,
  sendFastZero: 1 << 11,
  /** Only with extended headers: BLOCK_STATUS may name the contexts that it is about. */
  blockStatusPayload: 1 << 12,
} as const;

/** "Option types". */
export const NBD_OPTION = {
  exportName: 1,
  abort: 2,
  list: 3,
  startTls: 5,
  info: 6,
  go: 7,
  structuredReply: 8,
  listMetaContext: 9,
  setMetaContext: 10,
  extendedHeaders: 11,
} as const;

/** "Option reply types". */
export const NBD_REP = {
  ack: 1,
  server: 2,
  info: 3,
  metaContext: 4,
  errUnsupported: 0x80000001,
  errPolicy: 0x80000002,
  errInvalid: 0x80000003,
  errPlatform: 0x80000004,
  errTlsRequired: 0x80000005,
  errUnknown: 0x80000006,
  errShutdown: 0x80000007,
  errBlockSizeRequired: 0x80000008,
  errTooBig: 0x80000009,
  errExtendedHeaderRequired: 0x8000000a,
} as const;

/** Information types of NBD_OPT_INFO and NBD_OPT_GO. */
export const NBD_INFO = { export: 0, name: 1, description: 2, blockSize: 3 } as const;

/** "Request types". */
export const NBD_CMD = {
  read: 0,
  write: 1,
  disconnect: 2,
  flush: 3,
  trim: 4,
  cache: 5,
  writeZeroes: 6,
  blockStatus: 7,
} as const;

/** "Command flags". */
export const NBD_CMD_FLAG = {
  fua: 1 << 0,
  noHole: 1 << 1,
  /** A read: answer with one content chunk at most. */
  df: 1 << 2,
  /** Block status: one extent per context, no longer than asked. */
  reqOne: 1 << 3,
  /** Write zeroes: fail with ENOTSUP rather than be as slow as a write. */
  fastZero: 1 << 4,
  /** Extended headers only: the length is that of a payload that follows, not of what is acted on. */
  payloadLength: 1 << 5,
} as const;

/** "Error values": the numbers of Linux. */
export const NBD_ERROR = {
  permission: 1,
  io: 5,
  noMemory: 12,
  invalid: 22,
  noSpace: 28,
  overflow: 75,
  notSupported: 95,
  shutdown: 108,
} as const;

/** "Names of exports": a string is at most 4096 bytes. */
export const NBD_STRING_BYTES_MAX = 4096;
export const NBD_GREETING_BYTES = 18;
export const NBD_CLIENT_FLAGS_BYTES = 4;
export const NBD_OPTION_HEADER_BYTES = 16;
export const NBD_OPTION_REPLY_HEADER_BYTES = 20;
export const NBD_REQUEST_BYTES = 28;
export const NBD_EXTENDED_REQUEST_BYTES = 32;
export const NBD_SIMPLE_REPLY_BYTES = 16;
/** Zero bytes that end the answer to NBD_OPT_EXPORT_NAME, unless both sides agreed to leave them out. */
export const NBD_EXPORT_NAME_PADDING_BYTES = 124;

const TWO_32 = 4294967296;

/**
 * A request, as a record that is used over and over. Offsets, and lengths of extended requests, from 2^53
 * lose their last bits: no export is that large.
 */
export interface NbdRequest {
  flags: number;
  type: number;
  cookieHigh: number;
  cookieLow: number;
  at: number;
  length: number;
}

/** Writes the NBD_REQUEST_BYTES of a request. Positional for the hot path. */
export function encodeRequest(
  view: DataView,
  offset: number,
  type: number,
  flags: number,
  cookieHigh: number,
  cookieLow: number,
  at: number,
  length: number,
): void {
  view.setUint32(offset, NBD_REQUEST_MAGIC);
  view.setUint16(offset + 4, flags);
  view.setUint16(offset + 6, type);
  view.setUint32(offset + 8, cookieHigh);
  view.setUint32(offset + 12, cookieLow);
  view.setUint32(offset + 16, at / TWO_32);
  view.setUint32(offset + 20, at % TWO_32);
  view.setUint32(offset + 24, length);
}

/** Reads a request of which all bytes are there. @returns false for a wrong magic number. */
export function decodeRequest(view: DataView, offset: number, into: NbdRequest): boolean {
  if (view.getUint32(offset) !== NBD_REQUEST_MAGIC) return false;
  into.flags = view.getUint16(offset + 4);
  into.type = view.getUint16(offset + 6);
  into.cookieHigh = view.getUint32(offset + 8);
  into.cookieLow = view.getUint32(offset + 12);
  into.at = view.getUint32(offset + 16) * TWO_32 + view.getUint32(offset + 20);
  into.length = view.getUint32(offset + 24);
  return true;
}

/** Writes the NBD_EXTENDED_REQUEST_BYTES of a request. Positional for the hot path. */
export function encodeExtendedRequest(
  view: DataView,
  offset: number,
  type: number,
  flags: number,
  cookieHigh: number,
  cookieLow: number,
  at: number,
  length: number,
): void {
  view.setUint32(offset, NBD_EXTENDED_REQUEST_MAGIC);
  view.setUint16(offset + 4, flags);
  view.setUint16(offset + 6, type);
  view.setUint32(offset + 8, cookieHigh);
  view.setUint32(offset + 12, cookieLow);
  view.setUint32(offset + 16, at / TWO_32);
  view.setUint32(offset + 20, at % TWO_32);
  view.setUint32(offset + 24, length / TWO_32);
  view.setUint32(offset + 28, length % TWO_32);
}

/** Reads an extended request of which all bytes are there. @returns false for a wrong magic number. */
export function decodeExtendedRequest(view: DataView, offset: number, into: NbdRequest): boolean {
  if (view.getUint32(offset) !== NBD_EXTENDED_REQUEST_MAGIC) return false;
  into.flags = view.getUint16(offset + 4);
  into.type = view.getUint16(offset + 6);
  into.cookieHigh = view.getUint32(offset + 8);
  into.cookieLow = view.getUint32(offset + 12);
  into.at = view.getUint32(offset + 16) * TWO_32 + view.getUint32(offset + 20);
  into.length = view.getUint32(offset + 24) * TWO_32 + view.getUint32(offset + 28);
  return true;
}

/** A simple reply's header, as a record that is used over and over. */
export interface NbdSimpleReply {
  error: number;
  cookieHigh: number;
  cookieLow: number;
}

/** Writes the NBD_SIMPLE_REPLY_BYTES of a reply's header. Positional for the hot path. */
export function encodeSimpleReply(
  view: DataView,
  offset: number,
  error: number,
  cookieHigh: number,
  cookieLow: number,
): void {
  view.setUint32(offset, NBD_SIMPLE_REPLY_MAGIC);
  view.setUint32(offset + 4, error);
  view.setUint32(offset + 8, cookieHigh);
  view.setUint32(offset + 12, cookieLow);
}

/** Reads a reply's header of which all bytes are there. @returns false for a wrong magic number. */
export function decodeSimpleReply(view: DataView, offset: number, into: NbdSimpleReply): boolean {
  if (view.getUint32(offset) !== NBD_SIMPLE_REPLY_MAGIC) return false;
  into.error = view.getUint32(offset + 4);
  into.cookieHigh = view.getUint32(offset + 8);
  into.cookieLow = view.getUint32(offset + 12);
  return true;
}

/** The NBD error for a Linux errno: those that the protocol knows stay, the others become their kin. */
export function nbdErrorOf(errno: number): number {
  switch (errno) {
    case 0:
    case NBD_ERROR.permission:
    case NBD_ERROR.io:
    case NBD_ERROR.noMemory:
    case NBD_ERROR.invalid:
    case NBD_ERROR.noSpace:
    case NBD_ERROR.overflow:
    case NBD_ERROR.notSupported:
    case NBD_ERROR.shutdown:
      return errno;
    case 13: // EACCES
    case 30: // EROFS
      return NBD_ERROR.permission;
    case 27: // EFBIG
    case 122: // EDQUOT
      return NBD_ERROR.noSpace;
    default:
      return NBD_ERROR.io;
  }
}
