/**
 * Where a file's bytes are on its device: FS_IOC_FIEMAP, `struct fiemap` and `struct fiemap_extent` of
 * include/uapi/linux/fiemap.h. Little-endian.
 */
export const FS_IOC_FIEMAP = 0xc020660bn;

const HEAD_BYTES = 32, EXTENT_BYTES = 56;
const LENGTH_AT = 8, MAPPED_AT = 20, COUNT_AT = 24;
const LAST = 0x1, UNKNOWN = 0x2, DELALLOC = 0x4, DATA_INLINE = 0x200;
/** Of these the address on the device says nothing. */
const NOWHERE = UNKNOWN | DELALLOC | DATA_INLINE;

export interface FileExtent {
  /** Bytes, in the file. */
  readonly logical: number;
  /** Bytes, on the device; -1: not there, or not yet. */
  readonly physical: number;
  readonly length: number;
  /** No extent follows. */
  readonly isLast: boolean;
}

/** A request for a file's extents from `logical` on, with room for so many. */
export function encodeFiemapRequest(
  { logical, extents }: { logical: number; extents: number },
): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(HEAD_BYTES + extents * EXTENT_BYTES);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, BigInt(logical), true);
  view.setBigUint64(LENGTH_AT, 0xffffffffffffffffn - BigInt(logical), true);
  view.setUint32(COUNT_AT, extents, true);
  return bytes;
}

/** The request's bytes after the call. */
export function decodeFiemap(bytes: Uint8Array): FileExtent[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const room = Math.floor((bytes.byteLength - HEAD_BYTES) / EXTENT_BYTES);
  const mapped = Math.min(view.getUint32(MAPPED_AT, true), room);
  return Array.from({ length: mapped }, (_, index) => {
    const from = HEAD_BYTES + index * EXTENT_BYTES;
    const flags = view.getUint32(from + 40, true);
    const physical = Number(view.getBigUint64(from + 8, true));
    return {
      logical: Number(view.getBigUint64(from, true)),
      physical: (flags & NOWHERE) !== 0 ? -1 : physical,
      length: Number(view.getBigUint64(from + 16, true)),
      isLast: (flags & LAST) !== 0,
    };
  });
}
