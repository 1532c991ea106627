/**
 * The ublk driver's records: control commands, a device's description and parameters, request descriptors.
 * Source: include/uapi/linux/ublk_cmd.h, Linux 6.12, and UPDATE_SIZE of 6.16. The kernel's own byte order,
 * which is little-endian on x86-64 and aarch64.
 *
 * Control records are written through a DataView. Descriptors lie in memory that the driver maps for us and
 * rewrites under each tag; they are read as 32-bit words in place, and nothing there allocates.
 */

/** Control commands in ioctl encoding: _IOWR('u', N, struct ublksrv_ctrl_cmd), _IOR for what only asks. */
export const UBLK_CONTROL = {
  addDevice: 0xc0207504,
  deleteDevice: 0xc0207505,
  startDevice: 0xc0207506,
  stopDevice: 0xc0207507,
  setParameters: 0xc0207508,
  getParameters: 0x80207509,
  startRecovery: 0xc0207510,
  endRecovery: 0xc0207511,
  getDeviceInfo: 0x80207512,
  getFeatures: 0x80207513,
  deleteDeviceLater: 0x80207514,
  updateSize: 0xc0207515,
} as const;

/** Commands on a queue's tags: _IOWR('u', N, struct ublksrv_io_cmd). */
export const UBLK_IO = { fetch: 0xc0107520, commitAndFetch: 0xc0107521 } as const;

/** Device flags, and bits of GET_FEATURES' answer. */
export const UBLK_FEATURE = {
  userRecovery: 1n << 3n,
  recoveryReissue: 1n << 4n,
  ioctlEncoding: 1n << 6n,
  userCopy: 1n << 7n,
  updateSize: 1n << 10n,
} as const;

export const UBLK_STATE = { dead: 0, live: 1, quiesced: 2, failIo: 3 } as const;

/** What a descriptor asks for; the driver may send others (zones). */
export const UBLK_OPERATION = { read: 0, write: 1, flush: 2, discard: 3, writeZeroes: 5 } as const;

/** Bits of a descriptor's first word beside the operation. */
export const UBLK_OPERATION_FLAG = { fua: 1 << 13, noUnmap: 1 << 15 } as const;

/** `UBLK_MAX_QUEUE_DEPTH`: tags of one queue. */
export const UBLK_DEPTH_MAX = 4096;
/** For ADD_DEV: the driver chooses the number. */
export const UBLK_ANY_DEVICE = 0xffffffff;
/** `struct ublksrv_ctrl_cmd`, which begins at byte 48 of a 128-byte SQE. */
export const UBLK_CONTROL_BYTES = 32;
export const UBLK_CONTROL_AT = 48;
/** `struct ublksrv_ctrl_dev_info`. */
export const UBLK_DEVICE_BYTES = 64;
/** `struct ublk_params` up to and with its discard part. */
export const UBLK_PARAMETERS_BYTES = 60;
export const UBLK_FEATURES_BYTES = 8;
/** `struct ublksrv_io_desc`, one per tag. */
const UBLK_DESCRIPTOR_BYTES = 24;
const DESCRIPTOR_WORDS = UBLK_DESCRIPTOR_BYTES / 4;

export const SECTOR_BYTES = 512;
const NOT_FOR_A_QUEUE = 0xffff;
const TWO_32 = 4294967296;
const COPY_BASE = 0x80000000, COPY_TAG_BITS = 25, COPY_QUEUE_BITS = 41;

export interface UblkControl {
  readonly device: number;
  /** Address and bytes of the command's record; 0 for commands without one. */
  readonly address?: number;
  readonly length?: number;
  /** The command's inline argument: a process id, sectors. */
  readonly data?: number;
  /** Bytes at the record's beginning that hold the path of the device's /dev/ublkcN, with its zero byte. */
  readonly pathLength?: number;
}

/** Writes `struct ublksrv_ctrl_cmd`. */
export function encodeUblkControl(view: DataView, at: number, command: UblkControl): void {
  const { device, address = 0, length = 0, data = 0, pathLength = 0 } = command;
  view.setUint32(at, device, true);
  view.setUint16(at + 4, NOT_FOR_A_QUEUE, true);
  view.setUint16(at + 6, length, true);
  view.setBigUint64(at + 8, BigInt(address), true);
  view.setBigUint64(at + 16, BigInt(data), true);
  view.setUint16(at + 24, pathLength, true);
  view.setUint16(at + 26, 0, true);
  view.setUint32(at + 28, 0, true);
}

/** @throws {RangeError} when the view ends before the record does. */
export function decodeUblkControl(view: DataView, at: number): Required<UblkControl> {
  wholeRecord(view, at, UBLK_CONTROL_BYTES);
  return {
    device: view.getUint32(at, true),
    length: view.getUint16(at + 6, true),
    address: Number(view.getBigUint64(at + 8, true)),
    data: Number(view.getBigUint64(at + 16, true)),
    pathLength: view.getUint16(at + 24, true),
  };
}

export interface UblkDevice {
  readonly queues: number;
  readonly depth: number;
  /** One of UBLK_STATE; the driver's to set. */
  readonly state: number;
  readonly maxIoBytes: number;
  readonly device: number;
  /** The server's process as it was told to START_DEV; -1 for none. */
  readonly pid: number;
  /** UBLK_FEATURE bits: what is asked for, then what the driver granted. */
  readonly flags: bigint;
  /** 64 bits that the driver keeps for the server and never looks at. */
  readonly cookie: bigint;
}

/** Writes `struct ublksrv_ctrl_dev_info`. */
export function encodeUblkDevice(view: DataView, at: number, info: UblkDevice): void {
  for (let i = 0; i < UBLK_DEVICE_BYTES; i += 4) view.setUint32(at + i, 0, true);
  view.setUint16(at, info.queues, true);
  view.setUint16(at + 2, info.depth, true);
  view.setUint16(at + 4, info.state, true);
  view.setUint32(at + 8, info.maxIoBytes, true);
  view.setUint32(at + 12, info.device, true);
  view.setInt32(at + 16, info.pid, true);
  view.setBigUint64(at + 24, info.flags, true);
  view.setBigUint64(at + 32, info.cookie, true);
}

/** @throws {RangeError} when the view ends before the record does. */
export function decodeUblkDevice(view: DataView, at: number): UblkDevice {
  wholeRecord(view, at, UBLK_DEVICE_BYTES);
  return {
    queues: view.getUint16(at, true),
    depth: view.getUint16(at + 2, true),
    state: view.getUint16(at + 4, true),
    maxIoBytes: view.getUint32(at + 8, true),
    device: view.getUint32(at + 12, true),
    pid: view.getInt32(at + 16, true),
    flags: view.getBigUint64(at + 24, true),
    cookie: view.getBigUint64(at + 32, true),
  };
}

export interface UblkParameters {
  readonly readOnly: boolean;
  /** Powers of two, logical at most physical. */
  readonly logicalBlockBytes: number;
  readonly physicalBlockBytes: number;
  readonly maxIoBytes: number;
  readonly sizeBytes: number;
  readonly discardGranularityBytes: number;
  /** Most bytes of one discard or write-zeroes. */
  readonly maxDiscardBytes: number;
}

const TYPE_BASIC = 1 << 0, TYPE_DISCARD = 1 << 1;
const ATTRIBUTE = { readOnly: 1 << 0, volatileCache: 1 << 2, fua: 1 << 3 } as const;
const BASIC_AT = 8, DISCARD_AT = 40;

/** Writes `struct ublk_params` with its basic and discard parts. Flush and FUA are always declared. */
export function encodeUblkParameters(view: DataView, at: number, parameters: UblkParameters): void {
  for (let i = 0; i < UBLK_PARAMETERS_BYTES; i += 4) view.setUint32(at + i, 0, true);
  const attributes = ATTRIBUTE.volatileCache | ATTRIBUTE.fua |
    (parameters.readOnly ? ATTRIBUTE.readOnly : 0);
  const physicalShift = Math.log2(parameters.physicalBlockBytes);
  view.setUint32(at, UBLK_PARAMETERS_BYTES, true);
  view.setUint32(at + 4, TYPE_BASIC | TYPE_DISCARD, true);
  const basic = at + BASIC_AT;
  view.setUint32(basic, attributes, true);
  view.setUint8(basic + 4, Math.log2(parameters.logicalBlockBytes));
  view.setUint8(basic + 5, physicalShift);
  // Optimal and least I/O are one block: anything larger reads as a RAID's stripe to mkfs.
  view.setUint8(basic + 6, physicalShift);
  view.setUint8(basic + 7, physicalShift);
  view.setUint32(basic + 8, parameters.maxIoBytes / SECTOR_BYTES, true);
  view.setBigUint64(basic + 16, BigInt(parameters.sizeBytes / SECTOR_BYTES), true);
  const discard = at + DISCARD_AT;
  view.setUint32(discard + 4, parameters.discardGranularityBytes, true);
  view.setUint32(discard + 8, parameters.maxDiscardBytes / SECTOR_BYTES, true);
  view.setUint32(discard + 12, parameters.maxDiscardBytes / SECTOR_BYTES, true);
  view.setUint16(discard + 16, 1, true);
}

/** Reads what GET_PARAMS answered. @throws {RangeError} when the view ends before the record does. */
export function decodeUblkParameters(view: DataView, at: number): UblkParameters {
  wholeRecord(view, at, UBLK_PARAMETERS_BYTES);
  const basic = at + BASIC_AT, discard = at + DISCARD_AT;
  return {
    readOnly: (view.getUint32(basic, true) & ATTRIBUTE.readOnly) !== 0,
    logicalBlockBytes: 2 ** view.getUint8(basic + 4),
    physicalBlockBytes: 2 ** view.getUint8(basic + 5),
    maxIoBytes: view.getUint32(basic + 8, true) * SECTOR_BYTES,
    sizeBytes: Number(view.getBigUint64(basic + 16, true)) * SECTOR_BYTES,
    discardGranularityBytes: view.getUint32(discard + 4, true),
    maxDiscardBytes: view.getUint32(discard + 8, true) * SECTOR_BYTES,
  };
}

/** Asks for the last byte, so that half a record is never taken for one. @throws {RangeError} */
function wholeRecord(view: DataView, at: number, length: number): void {
  view.getUint8(at + length - 1);
}

/** Bytes of a queue's descriptors as the driver maps them: it refuses any other length. */
export function ublkDescriptorsBytes(depth: number, pageBytes: number): number {
  return Math.ceil(depth * UBLK_DESCRIPTOR_BYTES / pageBytes) * pageBytes;
}

/** What a tag's request asks for, as in UBLK_OPERATION. Hot path, as are the four below. */
export function ublkOperation(words: Uint32Array, tag: number): number {
  return (words[tag * DESCRIPTOR_WORDS] as number) & 0xff;
}

/** UBLK_OPERATION_FLAG bits, among others. */
export function ublkOperationFlags(words: Uint32Array, tag: number): number {
  return (words[tag * DESCRIPTOR_WORDS] as number) & ~0xff;
}

/** Bytes of a tag's request. */
export function ublkLength(words: Uint32Array, tag: number): number {
  return (words[tag * DESCRIPTOR_WORDS + 1] as number) * SECTOR_BYTES;
}

/** Where a tag's request begins, bytes. Beyond 2^53 it is no longer exact, and out of every bounds. */
export function ublkStart(words: Uint32Array, tag: number): number {
  const i = tag * DESCRIPTOR_WORDS + 2;
  return ((words[i] as number) + (words[i + 1] as number) * TWO_32) * SECTOR_BYTES;
}

/** Where in /dev/ublkcN a tag's data are read from or written to (UBLK_F_USER_COPY). */
export function ublkCopyOffset(queue: number, tag: number): number {
  return COPY_BASE + queue * 2 ** COPY_QUEUE_BITS + tag * 2 ** COPY_TAG_BITS;
}
