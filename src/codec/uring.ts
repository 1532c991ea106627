/**
 * io_uring's ABI as numbers: opcodes, flags and field offsets (little-endian, 64-bit).
 * Source: include/uapi/linux/io_uring.h, Linux 6.12.
 */

export const URING_OP = {
  nop: 0,
  fsync: 3,
  pollAdd: 6,
  sendmsg: 9,
  timeout: 11,
  timeoutRemove: 12,
  accept: 13,
  asyncCancel: 14,
  connect: 16,
  fallocate: 17,
  openat: 18,
  close: 19,
  read: 22,
  write: 23,
  send: 26,
  recv: 27,
  shutdown: 34,
  renameat: 35,
  unlinkat: 36,
  /** URING_CMD */
  driverCommand: 46,
} as const;

export const SETUP = {
  cqSize: 1 << 3,
  /** Entries of 128 bytes, for commands with an argument of 80. */
  sqe128: 1 << 10,
  singleIssuer: 1 << 12,
  deferTaskrun: 1 << 13,
} as const;

export const FEATURE = { nodrop: 1 << 1, extArg: 1 << 8 } as const;
export const ENTER = { getEvents: 1 << 0, extArg: 1 << 3 } as const;
export const CQE = { more: 1 << 1 } as const;
export const FSYNC_DATASYNC = 1;
export const POLL_ADD_MULTI = 1;
export const RWF_DSYNC = 2;

/** Bytes of `struct io_uring_cqe`. */
export const CQE_BYTES = 16;
/** Bytes of `struct io_uring_params`; the u32 indexes of the fields that PSMA reads and writes. */
export const PARAMS_BYTES = 120;
export const PARAMS_U32 = {
  sqEntries: 0,
  cqEntries: 1,
  flags: 2,
  features: 5,
  sqOffHead: 10,
  sqOffTail: 11,
  sqOffMask: 12,
  sqOffFlags: 14,
  sqOffArray: 16,
  cqOffHead: 20,
  cqOffTail: 21,
  cqOffMask: 22,
  cqOffOverflow: 24,
  cqOffCqes: 25,
} as const;

export const OFFSET_SQ_RING = 0;
export const OFFSET_SQES = 0x10000000;
