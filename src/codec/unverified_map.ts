/**
 * The file of chunks that a mirror has not verified since they were last written: a 4 KiB header, then one
 * bit per chunk, padded to 4 KiB. Little-endian. As in the change map, the header names the boot of the kernel
 * that holds the pages: after another boot only what the write-intent log has as cold is as it says.
 */
import { crc32 } from "node:zlib";
import { PsmaError } from "../core/mod.ts";
import { planeBytes } from "./change_map.ts";

const MAGIC = 0x56414d50; // "PMAV"
const VERSION = 1;
export const UNVERIFIED_HEADER_BYTES = 4096;
const BOOT_ID_AT = 16, BOOT_ID_BYTES = 64, CRC_AT = 80;

export interface UnverifiedHeader {
  readonly chunks: number;
  /** Of the kernel that wrote it, at most 64 ASCII characters. */
  readonly boot_id: string;
}

/** Bytes of the whole file. */
export function unverifiedMapBytes(chunks: number): number {
  return UNVERIFIED_HEADER_BYTES + planeBytes(chunks);
}

/** The header, filled with zeros to its 4 KiB. */
export function encodeUnverifiedHeader({ chunks, boot_id }: UnverifiedHeader): Uint8Array {
  const bytes = new Uint8Array(UNVERIFIED_HEADER_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, MAGIC, true);
  view.setUint32(4, VERSION, true);
  view.setUint32(8, chunks, true);
  bytes.set(new TextEncoder().encode(boot_id).subarray(0, BOOT_ID_BYTES), BOOT_ID_AT);
  view.setUint32(CRC_AT, crc32(bytes.subarray(0, CRC_AT)), true);
  return bytes;
}

/** @throws {PsmaError} state/unverified-map when it is not one, damaged, or not of this format. */
export function decodeUnverifiedHeader(bytes: Uint8Array): UnverifiedHeader {
  if (bytes.length >= UNVERIFIED_HEADER_BYTES) {
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    const known = view.getUint32(0, true) === MAGIC && view.getUint32(4, true) === VERSION;
    const chunks = view.getUint32(8, true);
    const whole = view.getUint32(CRC_AT, true) === crc32(bytes.subarray(0, CRC_AT)) &&
      bytes.length >= unverifiedMapBytes(chunks);
    const boot = bytes.slice(BOOT_ID_AT, BOOT_ID_AT + BOOT_ID_BYTES);
    if (known && whole) {
      return { chunks, boot_id: new TextDecoder().decode(boot).replace(/\0+$/, "") };
    }
  }
  throw new PsmaError(
    "state/unverified-map",
    "Cannot read what is verified of the mirror: the file is damaged",
    { hint: "Everything is verified again; nothing is lost." },
  );
}
