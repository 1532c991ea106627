/**
 * Netlink messages, generic netlink's header and attributes. Integers are in the host's order, which is
 * little-endian on both machines that PSMA runs on. Sources: include/uapi/linux/netlink.h and genetlink.h,
 * Linux Documentation/userspace-api/netlink/intro.rst.
 *
 * A decoder answers undefined for bytes that are too few or contradict themselves, and never reads past their end.
 */

const NETLINK_HEADER_BYTES = 16;
const GENERIC_HEADER_BYTES = 4;
const ATTRIBUTE_HEADER_BYTES = 4;
const NLA_F_NESTED = 0x8000;
const ATTRIBUTE_TYPE_MASK = 0x3fff;

/** Types of messages that every family has. */
export const NETLINK_TYPE = { error: 2 } as const;
export const NETLINK_FLAG = { request: 1, ack: 4 } as const;
/** The family that knows the others: its number, its command and its attributes. */
export const GENERIC_CONTROL = {
  family: 16,
  getFamily: 3,
  familyId: 1,
  familyName: 2,
} as const;

export interface NetlinkMessage {
  /** A family's number, or one of NETLINK_TYPE. */
  readonly type: number;
  readonly flags: number;
  readonly seq: number;
  readonly payload: Uint8Array;
}

/** One attribute: its bytes, or attributes inside it. */
export interface NetlinkAttribute {
  readonly type: number;
  readonly value: Uint8Array;
  /** Set on what holds attributes itself. Old families leave it out of what they send. */
  readonly nested?: boolean;
}

/** What a generic family is told or tells. */
export interface GenericMessage {
  readonly command: number;
  readonly version: number;
  readonly attributes: readonly NetlinkAttribute[];
}

/** One message. */
export function encodeNetlinkMessage(message: NetlinkMessage): Uint8Array<ArrayBuffer> {
  const { type, flags, seq, payload } = message;
  const length = NETLINK_HEADER_BYTES + payload.length;
  const bytes = new Uint8Array(aligned(length)), view = new DataView(bytes.buffer);
  view.setUint32(0, length, true);
  view.setUint16(4, type, true);
  view.setUint16(6, flags, true);
  view.setUint32(8, seq, true);
  bytes.set(payload, NETLINK_HEADER_BYTES);
  return bytes;
}

/** All messages of one datagram. */
export function decodeNetlinkMessages(bytes: Uint8Array): NetlinkMessage[] | undefined {
  const messages: NetlinkMessage[] = [];
  const view = viewOf(bytes);
  for (let at = 0; at < bytes.length;) {
    if (bytes.length - at < NETLINK_HEADER_BYTES) return undefined;
    const length = view.getUint32(at, true);
    if (length < NETLINK_HEADER_BYTES || length > bytes.length - at) return undefined;
    messages.push({
      type: view.getUint16(at + 4, true),
      flags: view.getUint16(at + 6, true),
      seq: view.getUint32(at + 8, true),
      payload: bytes.subarray(at + NETLINK_HEADER_BYTES, at + length),
    });
    at += aligned(length);
  }
  return messages;
}

/** @returns the errno in the payload of a NETLINK_TYPE.error message; 0 acknowledges. */
export function decodeNetlinkError(payload: Uint8Array): number | undefined {
  return payload.length < 4 ? undefined : -viewOf(payload).getInt32(0, true);
}

/** The payload of a message to or from a generic family. */
export function encodeGenericMessage(message: GenericMessage): Uint8Array<ArrayBuffer> {
  const attributes = encodeAttributes(message.attributes);
  const bytes = new Uint8Array(GENERIC_HEADER_BYTES + attributes.length);
  bytes[0] = message.command;
  bytes[1] = message.version;
  bytes.set(attributes, GENERIC_HEADER_BYTES);
  return bytes;
}

/** The payload of a message to or from a generic family. */
export function decodeGenericMessage(payload: Uint8Array): GenericMessage | undefined {
  const [command, version] = payload;
  if (payload.length < GENERIC_HEADER_BYTES) return undefined;
  const attributes = decodeAttributes(payload.subarray(GENERIC_HEADER_BYTES));
  if (command === undefined || version === undefined || !attributes) return undefined;
  return { command, version, attributes };
}

/** Attributes, each padded to four bytes. */
export function encodeAttributes(
  attributes: readonly NetlinkAttribute[],
): Uint8Array<ArrayBuffer> {
  const lengths = attributes.map(({ value }) => ATTRIBUTE_HEADER_BYTES + value.length);
  const bytes = new Uint8Array(lengths.reduce((sum, length) => sum + aligned(length), 0));
  const view = new DataView(bytes.buffer);
  let at = 0;
  attributes.forEach(({ type, value, nested = false }, index) => {
    const length = lengths[index] ?? 0;
    view.setUint16(at, length, true);
    view.setUint16(at + 2, type | (nested ? NLA_F_NESTED : 0), true);
    bytes.set(value, at + ATTRIBUTE_HEADER_BYTES);
    at += aligned(length);
  });
  return bytes;
}

/** Attributes in their order; the last one's padding may be missing. */
export function decodeAttributes(bytes: Uint8Array): NetlinkAttribute[] | undefined {
  const attributes: NetlinkAttribute[] = [];
  const view = viewOf(bytes);
  for (let at = 0; at < bytes.length;) {
    if (bytes.length - at < ATTRIBUTE_HEADER_BYTES) return undefined;
    const length = view.getUint16(at, true), type = view.getUint16(at + 2, true);
    if (length < ATTRIBUTE_HEADER_BYTES || length > bytes.length - at) return undefined;
    const value = bytes.subarray(at + ATTRIBUTE_HEADER_BYTES, at + length);
    const nested = (type & NLA_F_NESTED) !== 0 ? { nested: true } : {};
    attributes.push({ type: type & ATTRIBUTE_TYPE_MASK, value, ...nested });
    at += aligned(length);
  }
  return attributes;
}

/** An attribute of 32 bits. */
export function u32Attribute(type: number, value: number): NetlinkAttribute {
  const bytes = new Uint8Array(4);
  viewOf(bytes).setUint32(0, value, true);
  return { type, value: bytes };
}

/** An attribute of 64 bits. */
export function u64Attribute(type: number, value: number): NetlinkAttribute {
  const bytes = new Uint8Array(8);
  viewOf(bytes).setBigUint64(0, BigInt(value), true);
  return { type, value: bytes };
}

/** An attribute of text, ended by a zero byte. */
export function textAttribute(type: number, text: string): NetlinkAttribute {
  return { type, value: new TextEncoder().encode(`${text}\0`) };
}

/** An attribute that holds attributes. */
export function nestedAttribute(
  type: number,
  inside: readonly NetlinkAttribute[],
): NetlinkAttribute {
  return { type, value: encodeAttributes(inside), nested: true };
}

/** The first attribute of a type as an unsigned number of 8, 16, 32 or 64 bits. */
export function numberIn(
  attributes: readonly NetlinkAttribute[],
  type: number,
): number | undefined {
  const value = attributes.find((one) => one.type === type)?.value;
  if (value === undefined) return undefined;
  const view = viewOf(value);
  switch (value.length) {
    case 1:
      return view.getUint8(0);
    case 2:
      return view.getUint16(0, true);
    case 4:
      return view.getUint32(0, true);
    case 8:
      return Number(view.getBigUint64(0, true));
    default:
      return undefined;
  }
}

/** The first attribute of a type as text, up to its zero byte. */
export function textIn(attributes: readonly NetlinkAttribute[], type: number): string | undefined {
  const value = attributes.find((one) => one.type === type)?.value;
  if (value === undefined) return undefined;
  const end = value.indexOf(0);
  return new TextDecoder().decode(end < 0 ? value : value.subarray(0, end));
}

/** The attributes inside the first one of a type; none where it is missing or malformed. */
export function attributesIn(
  attributes: readonly NetlinkAttribute[],
  type: number,
): NetlinkAttribute[] {
  const value = attributes.find((one) => one.type === type)?.value;
  return value === undefined ? [] : decodeAttributes(value) ?? [];
}

function aligned(length: number): number {
  return (length + 3) & ~3;
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
