/**
 * NBD's fixed newstyle negotiation. All integers are big-endian. Source: doc/proto.md of the
 * NetworkBlockDevice project, sections "Newstyle negotiation", "Option types" and "Option reply types".
 *
 * A decoder answers undefined for bytes that are too few or malformed, never reads past their end, and
 * leaves the consequence to its caller.
 */
import {
  NBD_CLIENT_FLAGS_BYTES,
  NBD_EXPORT_NAME_PADDING_BYTES,
  NBD_GREETING_BYTES,
  NBD_INFO,
  NBD_MAGIC,
  NBD_OPTION_HEADER_BYTES,
  NBD_OPTION_MAGIC,
  NBD_OPTION_REPLY_HEADER_BYTES,
  NBD_REPLY_MAGIC,
  NBD_STRING_BYTES_MAX,
} from "./nbd.ts";

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

/** What the client sends first. @param flags NBD_HANDSHAKE bits. */
export function encodeClientFlags(flags: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(NBD_CLIENT_FLAGS_BYTES);
  viewOf(bytes).setUint32(0, flags);
  return bytes;
}

/** @returns NBD_HANDSHAKE bits. */
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

/** @returns undefined also for a wrong magic number. */
export function decodeOptionHeader(bytes: Uint8Array): NbdOptionHeader | undefined {
  if (bytes.length < NBD_OPTION_HEADER_BYTES) return undefined;
  const view = viewOf(bytes);
  if (view.getBigUint64(0) !== NBD_OPTION_MAGIC) return undefined;
  return { option: view.getUint32(8), length: view.getUint32(12) };
}

/** One reply to an option, with its data. @param type of NBD_REP. */
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

/** @returns undefined also for a wrong magic number. */
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

/** The data of NBD_OPT_INFO and NBD_OPT_GO. */
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

/** @returns undefined also when the lengths inside do not fit the data. */
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

/** The data of one NBD_REP_INFO. */
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

/** The data of one NBD_REP_SERVER. */
export function encodeListEntry(entry: NbdListEntry): Uint8Array<ArrayBuffer> {
  const name = new TextEncoder().encode(entry.name);
  const description = new TextEncoder().encode(entry.description);
  const bytes = new Uint8Array(4 + name.length + description.length);
  viewOf(bytes).setUint32(0, name.length);
  bytes.set(name, 4);
  bytes.set(description, 4 + name.length);
  return bytes;
}

/** @returns undefined also when the name is longer than the data. */
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

/** @returns size and transmission flags; the zeroes are not looked at. */
export function decodeExportNameAnswer(
  bytes: Uint8Array,
): { sizeBytes: number; flags: number } | undefined {
  if (bytes.length < 10) return undefined;
  return { sizeBytes: Number(viewOf(bytes).getBigUint64(0)), flags: viewOf(bytes).getUint16(8) };
}

function decodeText(bytes: Uint8Array): string | undefined {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    return undefined;
  }
}
