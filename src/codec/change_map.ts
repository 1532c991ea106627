/**
 * The change map's file: a 4 KiB header, then three planes of one bit per chunk, each padded to 4 KiB.
 * Little-endian. Planes: what the target lacks (`dirty`), and twice what was written there and not flushed
 * since (`unstable`, two generations).
 */
import { PsmaError, roundUp } from "../core/mod.ts";

const MAGIC = 0x50414d50; // "PMAP"
const VERSION = 1;
export const CHANGE_MAP_HEADER_BYTES = 4096;
export const CHANGE_MAP_PLANES = 3;

export interface ChangeMapHeader {
  readonly chunk_bytes: number;
  readonly chunks: number;
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
  return bytes;
}

/** @throws {PsmaError} state/change-map when it is not one, or not of this format. */
export function decodeChangeMapHeader(bytes: Uint8Array): ChangeMapHeader {
  if (bytes.length >= 20) {
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    const header = { chunk_bytes: view.getUint32(8, true), chunks: view.getUint32(12, true) };
    const check = (MAGIC ^ VERSION ^ header.chunk_bytes ^ header.chunks) >>> 0;
    const known = view.getUint32(0, true) === MAGIC && view.getUint32(4, true) === VERSION;
    if (known && view.getUint32(16, true) === check) return header;
  }
  throw new PsmaError("state/change-map", "Cannot read the change map: its header is damaged", {
    hint: "Cancel the mirror and start it again; the volume itself is not affected.",
  });
}
