/**
 * What a block device says of itself, by ioctl, and what direct I/O on a file or device asks for.
 * Source: include/uapi/linux/fs.h (BLKGETSIZE64, BLKSSZGET), include/uapi/linux/stat.h (STATX_DIOALIGN, Linux 6.1).
 */
import { attempt, mustSucceed } from "./attempt.ts";
import { cString, libc } from "./libc.ts";

const BLKGETSIZE64 = 0x80081272n, BLKSSZGET = 0x1268n;
const ENOTTY = 25, EINVAL = 22;
const AT_EMPTY_PATH = 0x1000, STATX_DIOALIGN = 0x2000;
/** Within `struct statx`. */
const STATX_BYTES = 256, MASK_AT = 0, MEMORY_ALIGN_AT = 152, OFFSET_ALIGN_AT = 156;

export interface BlockDeviceShape {
  readonly sizeBytes: number;
  /** Logical block size: the least that the device reads or writes. */
  readonly blockBytes: number;
}

/** @returns undefined when the descriptor is no block device's. @throws {PsmaError} sys/errno-N. */
export function blockDeviceShape(fd: number): BlockDeviceShape | undefined {
  const size = new Uint8Array(8), block = new Uint8Array(4);
  const measured = attempt(() => libc().ioctl(fd, BLKGETSIZE64, size));
  if (measured === -ENOTTY || measured === -EINVAL) return undefined;
  mustSucceed("measure a block device", () => measured);
  mustSucceed("ask a device for its block size", () => libc().ioctl(fd, BLKSSZGET, block));
  return {
    sizeBytes: Number(new DataView(size.buffer).getBigUint64(0, true)),
    blockBytes: new DataView(block.buffer).getInt32(0, true),
  };
}

/** Bytes that memory, and that offset and length of direct I/O must be multiples of. */
export interface DirectAlignment {
  readonly memoryBytes: number;
  readonly offsetBytes: number;
}

/** @returns undefined where the kernel or the file system does not tell. */
export function directAlignment(fd: number): DirectAlignment | undefined {
  const statx = new Uint8Array(STATX_BYTES), view = new DataView(statx.buffer);
  if (libc().statx(fd, cString(""), AT_EMPTY_PATH, STATX_DIOALIGN, statx) < 0) return undefined;
  if ((view.getUint32(MASK_AT, true) & STATX_DIOALIGN) === 0) return undefined;
  const memoryBytes = view.getUint32(MEMORY_ALIGN_AT, true);
  const offsetBytes = view.getUint32(OFFSET_ALIGN_AT, true);
  return memoryBytes > 0 && offsetBytes > 0 ? { memoryBytes, offsetBytes } : undefined;
}
