/**
 * NBD's metadata contexts: how they are chosen in negotiation, and the extents that BLOCK_STATUS answers
 * with. All integers are big-endian. Source: doc/proto.md of the NetworkBlockDevice project, "Metadata
 * querying", NBD_OPT_LIST_META_CONTEXT, NBD_OPT_SET_META_CONTEXT and NBD_REPLY_TYPE_BLOCK_STATUS; its
 * EXTENDED_HEADERS extension for 64-bit extents and for requests that name contexts.
 *
 * A decoder answers undefined for bytes that are too few or malformed, and never reads past their end.
 */
import { NBD_STRING_BYTES_MAX } from "./nbd.ts";

/** The one context that the protocol itself defines: what is allocated, and what reads as zeros. */
export const NBD_ALLOCATION = "base:allocation";

/** Status flags of NBD_ALLOCATION. */
export const NBD_STATE = { hole: 1 << 0, zero: 1 << 1 } as const;

const EXTENT_BYTES = 8, EXTENDED_EXTENT_BYTES = 16;
const TWO_32 = 4294967296;

const viewOf = (bytes: Uint8Array) =>
  new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/** Data of NBD_OPT_LIST_META_CONTEXT and NBD_OPT_SET_META_CONTEXT. */
export interface NbdContextQuery {
  /** The export's. */
  readonly name: string;
  /** `namespace:leaf`; none asks LIST for everything and SET for nothing. */
  readonly queries: readonly string[];
}

/** The data of NBD_OPT_LIST_META_CONTEXT and NBD_OPT_SET_META_CONTEXT. */
export function encodeContextQuery(query: NbdContextQuery): Uint8Array<ArrayBuffer> {
  const [name, ...queries] = [query.name, ...query.queries].map((text) =>
    new TextEncoder().encode(text)
  ) as [Uint8Array, ...Uint8Array[]];
  const length = queries.reduce((sum, text) => sum + 4 + text.length, 8 + name.length);
  const bytes = new Uint8Array(length), view = viewOf(bytes);
  view.setUint32(0, name.length);
  bytes.set(name, 4);
  let at = 4 + name.length;
  view.setUint32(at, queries.length);
  at += 4;
  for (const text of queries) {
    view.setUint32(at, text.length);
    bytes.set(text, at + 4);
    at += 4 + text.length;
  }
  return bytes;
}

/** @returns undefined also when the lengths inside do not fit the data. */
export function decodeContextQuery(bytes: Uint8Array): NbdContextQuery | undefined {
  const name = decodeString(bytes, 0);
  if (!name || bytes.length < name.end + 4) return undefined;
  const count = viewOf(bytes).getUint32(name.end);
  const queries: string[] = [];
  let at = name.end + 4;
  for (let i = 0; i < count; i++) {
    const query = decodeString(bytes, at);
    if (!query) return undefined;
    queries.push(query.text);
    at = query.end;
  }
  return at === bytes.length ? { name: name.text, queries } : undefined;
}

/** Data of one NBD_REP_META_CONTEXT. */
export interface NbdContext {
  /** What BLOCK_STATUS calls it on this connection; 0 in a list. */
  readonly id: number;
  readonly name: string;
}

/** The data of one NBD_REP_META_CONTEXT. */
export function encodeContext(context: NbdContext): Uint8Array<ArrayBuffer> {
  const name = new TextEncoder().encode(context.name);
  const bytes = new Uint8Array(4 + name.length);
  viewOf(bytes).setUint32(0, context.id);
  bytes.set(name, 4);
  return bytes;
}

/** @returns undefined also for a name that is empty, too long or not UTF-8. */
export function decodeContext(bytes: Uint8Array): NbdContext | undefined {
  if (bytes.length < 5 || bytes.length > 4 + NBD_STRING_BYTES_MAX) return undefined;
  const name = decodeText(bytes.subarray(4));
  return name === undefined ? undefined : { id: viewOf(bytes).getUint32(0), name };
}

/** A run of bytes of one state. */
export interface NbdExtent {
  readonly length: number;
  /** What the context defines: NBD_STATE bits for NBD_ALLOCATION. */
  readonly flags: number;
}

/** The payload of a block status chunk: consecutive extents from the request's offset on. */
export interface NbdBlockStatus {
  readonly contextId: number;
  readonly extents: readonly NbdExtent[];
}

/** The payload of a chunk of type `blockStatus`; lengths must be below 2^32. */
export function encodeBlockStatus(status: NbdBlockStatus): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(4 + status.extents.length * EXTENT_BYTES), view = viewOf(bytes);
  view.setUint32(0, status.contextId);
  status.extents.forEach(({ length, flags }, i) => {
    view.setUint32(4 + i * EXTENT_BYTES, length);
    view.setUint32(8 + i * EXTENT_BYTES, flags);
  });
  return bytes;
}

/** @returns undefined also when there is no extent, part of one, or an empty one. */
export function decodeBlockStatus(bytes: Uint8Array): NbdBlockStatus | undefined {
  const count = (bytes.length - 4) / EXTENT_BYTES;
  if (count < 1 || !Number.isInteger(count)) return undefined;
  const view = viewOf(bytes);
  const extents = Array.from({ length: count }, (_, i) => ({
    length: view.getUint32(4 + i * EXTENT_BYTES),
    flags: view.getUint32(8 + i * EXTENT_BYTES),
  }));
  if (extents.some((extent) => extent.length === 0)) return undefined;
  return { contextId: view.getUint32(0), extents };
}

/** The payload of a chunk of type `blockStatusExtended`. */
export function encodeExtendedBlockStatus(status: NbdBlockStatus): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(8 + status.extents.length * EXTENDED_EXTENT_BYTES);
  const view = viewOf(bytes);
  view.setUint32(0, status.contextId);
  view.setUint32(4, status.extents.length);
  status.extents.forEach(({ length, flags }, i) => {
    view.setBigUint64(8 + i * EXTENDED_EXTENT_BYTES, BigInt(length));
    view.setBigUint64(16 + i * EXTENDED_EXTENT_BYTES, BigInt(flags));
  });
  return bytes;
}

/** @returns undefined also when there is no extent, part of one, an empty one, or not as many as it says. */
export function decodeExtendedBlockStatus(bytes: Uint8Array): NbdBlockStatus | undefined {
  const count = (bytes.length - 8) / EXTENDED_EXTENT_BYTES;
  if (count < 1 || !Number.isInteger(count)) return undefined;
  const view = viewOf(bytes), said = view.getUint32(4);
  // 0 leaves it to the chunk's length.
  if (said !== 0 && said !== count) return undefined;
  const extents = Array.from({ length: count }, (_, i) => ({
    length: Number(view.getBigUint64(8 + i * EXTENDED_EXTENT_BYTES)),
    flags: Number(view.getBigUint64(16 + i * EXTENDED_EXTENT_BYTES)),
  }));
  if (extents.some((extent) => extent.length === 0)) return undefined;
  return { contextId: view.getUint32(0), extents };
}

/** The payload of an extended BLOCK_STATUS request that names the contexts it wants. */
export interface NbdStatusQuery {
  readonly length: number;
  readonly contextIds: readonly number[];
}

/** The payload of an extended BLOCK_STATUS request with NBD_CMD_FLAG.payloadLength. */
export function encodeStatusQuery(query: NbdStatusQuery): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(8 + query.contextIds.length * 4), view = viewOf(bytes);
  view.setBigUint64(0, BigInt(query.length));
  query.contextIds.forEach((id, i) => view.setUint32(8 + i * 4, id));
  return bytes;
}

/** @returns undefined also when a context is named in part or twice. */
export function decodeStatusQuery(bytes: Uint8Array): NbdStatusQuery | undefined {
  const count = (bytes.length - 8) / 4;
  if (count < 0 || !Number.isInteger(count)) return undefined;
  const view = viewOf(bytes);
  const contextIds = Array.from({ length: count }, (_, i) => view.getUint32(8 + i * 4));
  if (new Set(contextIds).size < count) return undefined;
  const length = view.getUint32(0) * TWO_32 + view.getUint32(4);
  return { length, contextIds };
}

/** A string with its length before it. @returns undefined when it is too long, cut off or not UTF-8. */
function decodeString(bytes: Uint8Array, at: number): { text: string; end: number } | undefined {
  if (bytes.length < at + 4) return undefined;
  const length = viewOf(bytes).getUint32(at), end = at + 4 + length;
  if (length > NBD_STRING_BYTES_MAX || bytes.length < end) return undefined;
  const text = decodeText(bytes.subarray(at + 4, end));
  return text === undefined ? undefined : { text, end };
}

function decodeText(bytes: Uint8Array): string | undefined {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    return undefined;
  }
}
