/**
 * The change map's file: a 4 KiB header, then four planes of one bit per chunk, each padded to 4 KiB.
 * Little-endian. Planes: what the target lacks (`dirty`), twice what was written there and not flushed
 * since (`unstable`, two generations), and of what is dirty that which may be equal on both sides
 * (`doubtful`). Version 1 has no plane of doubt: nothing in it is doubtful. The header names the boot of the kernel that holds the pages: after
 * another boot they may be older than what they speak of.
 */
import { PsmaError, roundUp } from "../core/mod.ts";

const MAGIC = 0x50414d50; // "PMAP"
const VERSION = 2;
export const CHANGE_MAP_HEADER_BYTES = 4096;
/** Planes by version. */
const PLANES: Readonly<Record<number, number>> = { 1: 3, 2: 4 };
const BOOT_ID_AT = 32, BOOT_ID_BYTES = 64;

export interface ChangeMapHeader {
  readonly chunk_bytes: number;
  readonly chunks: number;
  /** Of the kernel that wrote it, at most 64 ASCII characters. */
  readonly boot_id: string;
  /** Left out: the newest. */
  readonly version?: number;
}

/** Bytes of one plane in the file. */
export function planeBytes(chunks: number): number {
  return roundUp(Math.ceil(chunks / 8), 4096);
}

/** Planes in the file. */
export function changeMapPlanes({ version = VERSION }: Pick<ChangeMapHeader, "version">): number {
  return PLANES[version] ?? 0;
}

/** Bytes of the whole file. */
export function changeMapBytes(header: Pick<ChangeMapHeader, "chunks" | "version">): number {
  return CHANGE_MAP_HEADER_BYTES + changeMapPlanes(header) * planeBytes(header.chunks);
}

/** The header, filled with zeros to its 4 KiB. */
export function encodeChangeMapHeader(header: ChangeMapHeader): Uint8Array {
  const bytes = new Uint8Array(CHANGE_MAP_HEADER_BYTES), version = header.version ?? VERSION;
  const view = new DataView(bytes.buffer);
  view.setUint32(0, MAGIC, true);
  view.setUint32(4, version, true);
  view.setUint32(8, header.chunk_bytes, true);
  view.setUint32(12, header.chunks, true);
  view.setUint32(16, (MAGIC ^ version ^ header.chunk_bytes ^ header.chunks) >>> 0, true);
  bytes.set(new TextEncoder().encode(header.boot_id).subarray(0, BOOT_ID_BYTES), BOOT_ID_AT);
  return bytes;
}

/** @throws {PsmaError} state/change-map when it is not one, or not of this format. */
export function decodeChangeMapHeader(bytes: Uint8Array): ChangeMapHeader {
  if (bytes.length >= BOOT_ID_AT + BOOT_ID_BYTES) {
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    const boot = bytes.slice(BOOT_ID_AT, BOOT_ID_AT + BOOT_ID_BYTES);
    const version = view.getUint32(4, true);
    const header = {
      version,
      chunk_bytes: view.getUint32(8, true),
      chunks: view.getUint32(12, true),
      boot_id: new TextDecoder().decode(boot).replace(/\0+$/, ""),
    };
    const check = (MAGIC ^ version ^ header.chunk_bytes ^ header.chunks) >>> 0;
    const known = view.getUint32(0, true) === MAGIC && PLANES[version] !== undefined;
    if (known && view.getUint32(16, true) === check) return header;
  }
  throw new PsmaError("state/change-map", "Cannot read the change map: its header is damaged", {
    hint: "Cancel the mirror and start it again; the volume itself is not affected.",
  });
}
