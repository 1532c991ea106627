/**
 * What a file system says of who owns its blocks: FS_IOC_GETFSMAP, `struct fsmap_head` and `struct fsmap` of
 * include/uapi/linux/fsmap.h (Linux 4.12). Little-endian. ext4 tells free space and its own structures; xfs
 * tells inodes too where it keeps reverse mappings (`mkfs.xfs -m rmapbt=1`).
 */
export const FS_IOC_GETFSMAP = 0xc0c0583bn;

const HEAD_BYTES = 192, RECORD_BYTES = 64;
const COUNT_AT = 8, ENTRIES_AT = 12, LOW_AT = 64, HIGH_AT = LOW_AT + RECORD_BYTES;
const SPECIAL_OWNER = 0x10, LAST = 0x20;
const OWN_FREE = 1n, OWN_UNKNOWN = 2n;
const ALL_64 = 0xffffffffffffffffn, ALL_32 = 0xffffffff;

export interface FsmapRecord {
  /** Bytes, on the device. */
  readonly at: number;
  readonly length: number;
  /** An inode's number, or what else is there. */
  readonly owner: number | "free" | "metadata" | "unknown";
  /** No record follows. */
  readonly isLast: boolean;
}

/** A request for the owners of [at, end), with room for so many records. @param device as stat(2) has it. */
export function encodeFsmapRequest(
  { device, at, end, records }: { device: number; at: number; end: number; records: number },
): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(HEAD_BYTES + records * RECORD_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint32(COUNT_AT, records, true);
  view.setUint32(LOW_AT, device, true);
  view.setBigUint64(LOW_AT + 8, BigInt(at), true);
  view.setUint32(HIGH_AT, device, true);
  view.setUint32(HIGH_AT + 4, ALL_32, true);
  view.setBigUint64(HIGH_AT + 8, BigInt(end - 1), true);
  view.setBigUint64(HIGH_AT + 16, ALL_64, true);
  view.setBigUint64(HIGH_AT + 24, ALL_64, true);
  return bytes;
}

/** The request's bytes after the call. */
export function decodeFsmap(bytes: Uint8Array): FsmapRecord[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const room = Math.floor((bytes.byteLength - HEAD_BYTES) / RECORD_BYTES);
  const entries = Math.min(view.getUint32(ENTRIES_AT, true), room);
  return Array.from({ length: entries }, (_, index) => {
    const from = HEAD_BYTES + index * RECORD_BYTES;
    const flags = view.getUint32(from + 4, true);
    return {
      at: Number(view.getBigUint64(from + 8, true)),
      length: Number(view.getBigUint64(from + 32, true)),
      owner: ownerOf(view.getBigUint64(from + 16, true), flags),
      isLast: (flags & LAST) !== 0,
    };
  });
}

function ownerOf(owner: bigint, flags: number): FsmapRecord["owner"] {
  if ((flags & SPECIAL_OWNER) === 0) return Number(owner);
  if (owner === OWN_FREE) return "free";
  return owner === OWN_UNKNOWN ? "unknown" : "metadata";
}
