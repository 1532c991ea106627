/**
 * NBD: fixed newstyle negotiation and the transmission phase with simple replies.
 * All integers are big-endian. Source: doc/proto.md of the NetworkBlockDevice project; the section that
 * each part follows is named beside it.
 *
 * Negotiation is encoded to and decoded from byte arrays; a decoder answers undefined for bytes that are
 * too few or malformed, never reads past their end, and leaves the consequence to its caller.
 * Requests and simple replies are read and written in place, for the hot path.
 */

/** "Newstyle negotiation". */
export const NBD_MAGIC = 0x4e42444d41474943n;
export const NBD_OPTION_MAGIC = 0x49484156454f5054n;
export const NBD_REPLY_MAGIC = 0x0003e889045565a9n;
/** "Request message", "Simple reply message". */
export const NBD_REQUEST_MAGIC = 0x25609513;
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
  canMultiConn: 1 << 8,
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
export const NBD_CMD_FLAG = { fua: 1 << 0, noHole: 1 << 1 } as const;

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
export const NBD_SIMPLE_REPLY_BYTES = 16;
/** Zero bytes that end the answer to NBD_OPT_EXPORT_NAME, unless both sides agreed to leave them out. */
export const NBD_EXPORT_NAME_PADDING_BYTES = 124;

const TWO_32 = 4294967296;

const viewOf = (bytes: Uint8Array) =>
  new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/** What the server sends first. @param flags NBD_HANDSHAKE bits. */
export function encodeGreeting(flags: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(NBD_GREETING_BYTES), view = viewOf(bytes);
  view.setBigUint64(0, NBD_MAGIC);
  view.setBigUint64(8, NBD_OPTION_MAGIC);
  view.setUint16(16, flags);
  return bytes;
}

/** @returns NBD_HANDSHAKE bits; undefined when it is not a newstyle server. */
export function decodeGreeting(bytes: Uint8Array): number | undefined {
  if (bytes.length < NBD_GREETING_BYTES) return undefined;
  const view = viewOf(bytes);
  if (view.getBigUint64(0) !== NBD_MAGIC) return undefined;
  return view.getBigUint64(8) === NBD_OPTION_MAGIC ? view.getUint16(16) : undefined;
}

export function encodeClientFlags(flags: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(NBD_CLIENT_FLAGS_BYTES);
  viewOf(bytes).setUint32(0, flags);
  return bytes;
}

export function decodeClientFlags(bytes: Uint8Array): number | undefined {
  return bytes.length < NBD_CLIENT_FLAGS_BYTES ? undefined : viewOf(bytes).getUint32(0);
}

/** One option with its data. */
export function encodeOption(option: number, data: Uint8Array): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(NBD_OPTION_HEADER_BYTES + data.length), view = viewOf(bytes);
  view.setBigUint64(0, NBD_OPTION_MAGIC);
  view.setUint32(8, option);
  view.setUint32(12, data.length);
  bytes.set(data, NBD_OPTION_HEADER_BYTES);
  return bytes;
}

/** @param length bytes of data that follow the header. */
export interface NbdOptionHeader {
  readonly option: number;
  readonly length: number;
}

export function decodeOptionHeader(bytes: Uint8Array): NbdOptionHeader | undefined {
  if (bytes.length < NBD_OPTION_HEADER_BYTES) return undefined;
  const view = viewOf(bytes);
  if (view.getBigUint64(0) !== NBD_OPTION_MAGIC) return undefined;
  return { option: view.getUint32(8), length: view.getUint32(12) };
}

export function encodeOptionReply(
  option: number,
  type: number,
  data: Uint8Array,
): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(NBD_OPTION_REPLY_HEADER_BYTES + data.length), view = viewOf(bytes);
  view.setBigUint64(0, NBD_REPLY_MAGIC);
  view.setUint32(8, option);
  view.setUint32(12, type);
  view.setUint32(16, data.length);
  bytes.set(data, NBD_OPTION_REPLY_HEADER_BYTES);
  return bytes;
}

export interface NbdOptionReplyHeader {
  readonly option: number;
  readonly type: number;
  readonly length: number;
}

export function decodeOptionReplyHeader(bytes: Uint8Array): NbdOptionReplyHeader | undefined {
  if (bytes.length < NBD_OPTION_REPLY_HEADER_BYTES) return undefined;
  const view = viewOf(bytes);
  if (view.getBigUint64(0) !== NBD_REPLY_MAGIC) return undefined;
  return { option: view.getUint32(8), type: view.getUint32(12), length: view.getUint32(16) };
}

/** Data of NBD_OPT_INFO and NBD_OPT_GO: which export, and what the client wants to know of it. */
export interface NbdExportQuery {
  readonly name: string;
  /** NBD_INFO types. */
  readonly wanted: readonly number[];
}

export function encodeExportQuery(query: NbdExportQuery): Uint8Array<ArrayBuffer> {
  const name = new TextEncoder().encode(query.name);
  const bytes = new Uint8Array(4 + name.length + 2 + query.wanted.length * 2);
  const view = viewOf(bytes);
  view.setUint32(0, name.length);
  bytes.set(name, 4);
  view.setUint16(4 + name.length, query.wanted.length);
  query.wanted.forEach((type, i) => view.setUint16(6 + name.length + i * 2, type));
  return bytes;
}

export function decodeExportQuery(bytes: Uint8Array): NbdExportQuery | undefined {
  if (bytes.length < 6) return undefined;
  const view = viewOf(bytes);
  const nameBytes = view.getUint32(0);
  if (nameBytes > NBD_STRING_BYTES_MAX || bytes.length < 6 + nameBytes) return undefined;
  const count = view.getUint16(4 + nameBytes);
  if (bytes.length !== 6 + nameBytes + count * 2) return undefined;
  const name = decodeText(bytes.subarray(4, 4 + nameBytes));
  if (name === undefined) return undefined;
  const wanted = Array.from({ length: count }, (_, i) => view.getUint16(6 + nameBytes + i * 2));
  return { name, wanted };
}

/** Data of one NBD_REP_INFO. */
export type NbdInfo =
  | { readonly type: typeof NBD_INFO.export; readonly sizeBytes: number; readonly flags: number }
  | { readonly type: typeof NBD_INFO.name; readonly text: string }
  | { readonly type: typeof NBD_INFO.description; readonly text: string }
  | {
    readonly type: typeof NBD_INFO.blockSize;
    readonly minimum: number;
    readonly preferred: number;
    readonly maximum: number;
  };

export function encodeInfo(info: NbdInfo): Uint8Array<ArrayBuffer> {
  switch (info.type) {
    case NBD_INFO.export: {
      const bytes = new Uint8Array(12), view = viewOf(bytes);
      view.setUint16(0, info.type);
      view.setBigUint64(2, BigInt(info.sizeBytes));
      view.setUint16(10, info.flags);
      return bytes;
    }
    case NBD_INFO.blockSize: {
      const bytes = new Uint8Array(14), view = viewOf(bytes);
      view.setUint16(0, info.type);
      view.setUint32(2, info.minimum);
      view.setUint32(6, info.preferred);
      view.setUint32(10, info.maximum);
      return bytes;
    }
    default: {
      const text = new TextEncoder().encode(info.text);
      const bytes = new Uint8Array(2 + text.length);
      viewOf(bytes).setUint16(0, info.type);
      bytes.set(text, 2);
      return bytes;
    }
  }
}

/** @returns undefined also for an information type that we do not know: clients skip those. */
export function decodeInfo(bytes: Uint8Array): NbdInfo | undefined {
  if (bytes.length < 2) return undefined;
  const view = viewOf(bytes), type = view.getUint16(0);
  if (type === NBD_INFO.export && bytes.length === 12) {
    return { type, sizeBytes: Number(view.getBigUint64(2)), flags: view.getUint16(10) };
  }
  if (type === NBD_INFO.blockSize && bytes.length === 14) {
    return {
      type,
      minimum: view.getUint32(2),
      preferred: view.getUint32(6),
      maximum: view.getUint32(10),
    };
  }
  if (type === NBD_INFO.name || type === NBD_INFO.description) {
    const text = decodeText(bytes.subarray(2));
    return text === undefined ? undefined : { type, text };
  }
  return undefined;
}

/** Data of one NBD_REP_SERVER: an export in a list. */
export interface NbdListEntry {
  readonly name: string;
  readonly description: string;
}

export function encodeListEntry(entry: NbdListEntry): Uint8Array<ArrayBuffer> {
  const name = new TextEncoder().encode(entry.name);
  const description = new TextEncoder().encode(entry.description);
  const bytes = new Uint8Array(4 + name.length + description.length);
  viewOf(bytes).setUint32(0, name.length);
  bytes.set(name, 4);
  bytes.set(description, 4 + name.length);
  return bytes;
}

export function decodeListEntry(bytes: Uint8Array): NbdListEntry | undefined {
  if (bytes.length < 4) return undefined;
  const nameBytes = viewOf(bytes).getUint32(0);
  if (nameBytes > bytes.length - 4) return undefined;
  const name = decodeText(bytes.subarray(4, 4 + nameBytes));
  const description = decodeText(bytes.subarray(4 + nameBytes));
  return name === undefined || description === undefined ? undefined : { name, description };
}

/** The answer to NBD_OPT_EXPORT_NAME, which has no reply header. */
export function encodeExportNameAnswer(
  answer: { readonly sizeBytes: number; readonly flags: number; readonly padded: boolean },
): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(10 + (answer.padded ? NBD_EXPORT_NAME_PADDING_BYTES : 0));
  viewOf(bytes).setBigUint64(0, BigInt(answer.sizeBytes));
  viewOf(bytes).setUint16(8, answer.flags);
  return bytes;
}

export function decodeExportNameAnswer(
  bytes: Uint8Array,
): { sizeBytes: number; flags: number } | undefined {
  if (bytes.length < 10) return undefined;
  return { sizeBytes: Number(viewOf(bytes).getBigUint64(0)), flags: viewOf(bytes).getUint16(8) };
}

/** A request, as a record that is used over and over. Offsets from 2^53 lose their last bits. */
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

function decodeText(bytes: Uint8Array): string | undefined {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    return undefined;
  }
}
