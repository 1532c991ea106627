/**
 * Digests of a frozen backup, to see later whether it has rotted: a 512-byte header, then one digest per
 * extent, from the beginning on; fewer while they are being recorded. Little-endian. Replaced atomically.
 */
import { crc32 } from "node:zlib";

const MAGIC = 0x47444250; // "PBDG"
const VERSION = 1;
const HEADER_BYTES = 512;
const EXTENT_AT = 8, DIGEST_AT = 12, COUNT_AT = 16, BODY_CRC_AT = 20;
const ALGORITHM_AT = 32, ALGORITHM_BYTES = 32, OF_AT = 64, OF_BYTES = 440, CRC_AT = 508;

export interface BackupDigests {
  /** Of which backup: a store's volume at an epoch; at most 440 bytes. */
  readonly of: string;
  readonly algorithm: string;
  readonly extent_bytes: number;
  /** Bytes of one digest. */
  readonly digest_bytes: number;
  readonly digests: Uint8Array;
}

/** The file's bytes. */
export function encodeBackupDigests(list: BackupDigests): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES + list.digests.length);
  const view = new DataView(bytes.buffer), text = new TextEncoder();
  view.setUint32(0, MAGIC, true);
  view.setUint32(4, VERSION, true);
  view.setUint32(EXTENT_AT, list.extent_bytes, true);
  view.setUint32(DIGEST_AT, list.digest_bytes, true);
  view.setUint32(COUNT_AT, list.digests.length / list.digest_bytes, true);
  view.setUint32(BODY_CRC_AT, crc32(list.digests), true);
  bytes.set(text.encode(list.algorithm).subarray(0, ALGORITHM_BYTES), ALGORITHM_AT);
  bytes.set(text.encode(list.of).subarray(0, OF_BYTES), OF_AT);
  view.setUint32(CRC_AT, crc32(bytes.subarray(0, CRC_AT)), true);
  bytes.set(list.digests, HEADER_BYTES);
  return bytes;
}

/** @returns undefined when the bytes are damaged or of another format. */
export function decodeBackupDigests(bytes: Uint8Array): BackupDigests | undefined {
  if (bytes.length < HEADER_BYTES) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const digest_bytes = view.getUint32(DIGEST_AT, true), count = view.getUint32(COUNT_AT, true);
  const digests = bytes.slice(HEADER_BYTES);
  const sound = view.getUint32(0, true) === MAGIC && view.getUint32(4, true) === VERSION &&
    view.getUint32(CRC_AT, true) === crc32(bytes.subarray(0, CRC_AT)) &&
    digests.length === count * digest_bytes && view.getUint32(BODY_CRC_AT, true) === crc32(digests);
  if (!sound) return undefined;
  const text = (at: number, length: number) =>
    new TextDecoder().decode(bytes.slice(at, at + length)).replace(/\0+$/, "");
  return {
    of: text(OF_AT, OF_BYTES),
    algorithm: text(ALGORITHM_AT, ALGORITHM_BYTES),
    extent_bytes: view.getUint32(EXTENT_AT, true),
    digest_bytes,
    digests,
  };
}
