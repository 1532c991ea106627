/**
 * The change map's file: a 4 KiB header, then three planes of one bit per chunk, each padded to 4 KiB.
 * Little-endian. Planes: what the target lacks (`dirty`), and twice what was written there and not flushed
 * since (`unstable`, two generations). The header names the boot of the kernel that holds the pages: after
 * another boot they may be older than what they speak of.
 */
import { PsmaError, roundUp } from "../core/mod.ts";

const MAGIC = 0x50414d50; // "PMAP"
const VERSION = 1;
export const CHANGE_MAP_HEADER_BYTES = 4096;
const CHANGE_MAP_PLANES = 3;
const BOOT_ID_AT = 32, BOOT_ID_BYTES = 64;

export interface ChangeMapHeader {
  readonly chunk_bytes: number;
  readonly chunks: number;
  /** Of the kernel that wrote it, at most 64 ASCII characters. */
  readonly boot_id: string;
}

/** Bytes of one plane in the file. */
export function planeBytes(chunks: number): number {
  return roundUp(Math.ceil(chunks / 8), 4096);
}

/** Bytes of the whole file. */
export function changeMapBytes(chunks: number): number {
  return CHANGE_MAP_HEADER_BYTES + CHANGE_MAP_PLANES * planeBytes(chunks);
}

/** The header, filled with zeros to its 4 KiB. */
export function encodeChangeMapHeader(header: ChangeMapHeader): Uint8Array {
  const bytes = new Uint8Array(CHANGE_MAP_HEADER_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, MAGIC, true);
  view.setUint32(4, VERSION, true);
  view.setUint32(8, header.chunk_bytes, true);
  view.setUint32(12, header.chunks, true);
  view.setUint32(16, (MAGIC ^ VERSION ^ header.chunk_bytes ^ header.chunks) >>> 0, true);
  bytes.set(new TextEncoder().encode(header.boot_id).subarray(0, BOOT_ID_BYTES), BOOT_ID_AT);
  return bytes;
}

/** @throws {PsmaError} state/change-map when it is not one, or not of this format. */
export function decodeChangeMapHeader(bytes: Uint8Array): ChangeMapHeader {
  if (bytes.length >= BOOT_ID_AT + BOOT_ID_BYTES) {
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    const boot = bytes.slice(BOOT_ID_AT, BOOT_ID_AT + BOOT_ID_BYTES);
    const header = {
      chunk_bytes: view.getUint32(8, true),
      chunks: view.getUint32(12, true),
      boot_id: new TextDecoder().decode(boot).replace(/\0+$/, ""),
    };
    const check = (MAGIC ^ VERSION ^ header.chunk_bytes ^ header.chunks) >>> 0;
    const known = view.getUint32(0, true) === MAGIC && view.getUint32(4, true) === VERSION;
    if (known && view.getUint32(16, true) === check) return header;
  }
  throw new PsmaError("state/change-map", "Cannot read the change map: its header is damaged", {
    hint: "Cancel the mirror and start it again; the volume itself is not affected.",
  });
}
