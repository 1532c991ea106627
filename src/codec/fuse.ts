/**
 * The FUSE kernel protocol, versions 7.31 to 7.40, as far as a file system of one regular file needs it.
 * Source: include/uapi/linux/fuse.h. The kernel speaks its own byte order, which is little-endian on
 * x86-64 and aarch64; every field is 32 or 64 bits wide and 4-byte aligned, so messages are read and
 * written as 32-bit words in place: `words` is a view of memory, `at` the index of the message's first
 * word. Nothing here allocates on the way of a read or a write.
 */

export const FUSE_OPCODE = {
  forget: 2,
  getattr: 3,
  setattr: 4,
  open: 14,
  read: 15,
  write: 16,
  statfs: 17,
  release: 18,
  fsync: 20,
  flush: 25,
  init: 26,
  interrupt: 36,
  destroy: 38,
  notifyReply: 41,
  batchForget: 42,
  fallocate: 43,
  lseek: 46,
} as const;

const FUSE_INIT_FLAG = {
  asyncRead: 1 << 0,
  bigWrites: 1 << 5,
  asyncDio: 1 << 15,
  abortError: 1 << 21,
  maxPages: 1 << 22,
  initExt: 1 << 30,
} as const;

/** Bits 32 to 63 of INIT's flags, shifted down. */
export const FUSE_INIT_FLAG2 = { hasResend: 1 << 7 } as const;
/** `enum fuse_notify_code`: what a server says unasked. */
const FUSE_NOTIFY = { resend: 7 } as const;
export const FUSE_OPEN_FLAG = { directIo: 1 << 0, parallelDirectWrites: 1 << 6 } as const;
export const FUSE_SETATTR_SIZE = 1 << 3;
export const FALLOCATE_MODE = { keepSize: 1, punchHole: 2, zeroRange: 0x10 } as const;

/** `struct fuse_in_header`, in front of every request, and `struct fuse_out_header`. */
export const FUSE_IN_HEADER_BYTES = 40;
export const FUSE_OUT_HEADER_BYTES = 16;
/** Where a WRITE's payload begins in its message: fuse_in_header and fuse_write_in. */
export const FUSE_WRITE_PAYLOAD_BYTES = 80;
export const FUSE_MAJOR = 7;
/** The newest minor that PSMA knows; the oldest it speaks with (FUSE_INIT's flags and FALLOCATE's zero range). */
const FUSE_MINOR = 40;
export const FUSE_MINOR_MIN = 31;

const TWO_32 = 4294967296;
const BODY = FUSE_IN_HEADER_BYTES / 4;
const EIO = 5;

/** Bytes that a request's body must have at least; opcodes without an entry need none. */
const BODY_BYTES_MIN = new Uint8Array(64);
BODY_BYTES_MIN[FUSE_OPCODE.forget] = 8;
BODY_BYTES_MIN[FUSE_OPCODE.getattr] = 16;
BODY_BYTES_MIN[FUSE_OPCODE.setattr] = 88;
BODY_BYTES_MIN[FUSE_OPCODE.open] = 8;
BODY_BYTES_MIN[FUSE_OPCODE.read] = 40;
BODY_BYTES_MIN[FUSE_OPCODE.write] = 40;
BODY_BYTES_MIN[FUSE_OPCODE.release] = 24;
BODY_BYTES_MIN[FUSE_OPCODE.fsync] = 16;
BODY_BYTES_MIN[FUSE_OPCODE.flush] = 24;
BODY_BYTES_MIN[FUSE_OPCODE.init] = 16;
BODY_BYTES_MIN[FUSE_OPCODE.interrupt] = 8;
BODY_BYTES_MIN[FUSE_OPCODE.batchForget] = 8;
BODY_BYTES_MIN[FUSE_OPCODE.fallocate] = 32;
BODY_BYTES_MIN[FUSE_OPCODE.lseek] = 24;

/**
 * Checks that `bytes` received bytes are one whole request.
 * @returns 0; -1 when not even the header can be trusted, so that no reply is possible; or the errno to reply with.
 */
export function checkFuseRequest(words: Uint32Array, at: number, bytes: number): number {
  if (bytes < FUSE_IN_HEADER_BYTES || words[at] !== bytes) return -1;
  const opcode = fuseOpcode(words, at);
  const body = bytes - FUSE_IN_HEADER_BYTES;
  if (opcode < 64 && body < (BODY_BYTES_MIN[opcode] as number)) return EIO;
  if (opcode === FUSE_OPCODE.write && body - 40 !== fuseIoLength(words, at)) return EIO;
  return 0;
}

/** What is asked for, as in `FUSE_OPCODE`; the kernel may send others. */
export function fuseOpcode(words: Uint32Array, at: number): number {
  return words[at + 1] as number;
}

/** Low half of the request's id, to be echoed; two halves because it may use all 64 bits. */
export function fuseUniqueLow(words: Uint32Array, at: number): number {
  return words[at + 2] as number;
}

/** High half of the request's id. */
export function fuseUniqueHigh(words: Uint32Array, at: number): number {
  return words[at + 3] as number;
}

/** Offset of READ, WRITE, FALLOCATE and LSEEK. Beyond 2^53 it is no longer exact, and out of every bounds. */
export function fuseIoOffset(words: Uint32Array, at: number): number {
  return u64(words, at + BODY + 2);
}

/** Bytes of READ and WRITE. */
export function fuseIoLength(words: Uint32Array, at: number): number {
  return words[at + BODY + 4] as number;
}

/** The `open` flags of the descriptor that a WRITE came through. */
export function fuseWriteOpenFlags(words: Uint32Array, at: number): number {
  return words[at + BODY + 8] as number;
}

/** Bytes of FALLOCATE. */
export function fuseFallocateLength(words: Uint32Array, at: number): number {
  return u64(words, at + BODY + 4);
}

/** Flags of FALLOCATE, as fallocate(2) takes them. */
export function fuseFallocateMode(words: Uint32Array, at: number): number {
  return words[at + BODY + 6] as number;
}

/** Which attributes SETATTR wants to change, as a bit mask. */
export function fuseSetattrValid(words: Uint32Array, at: number): number {
  return words[at + BODY] as number;
}

/** The size in bytes that SETATTR asks for; meant only when the mask says so. */
export function fuseSetattrSize(words: Uint32Array, at: number): number {
  return u64(words, at + BODY + 4);
}

export interface FuseInit {
  readonly major: number;
  readonly minor: number;
  readonly maxReadaheadBytes: number;
  readonly flags: number;
  /** 0 from kernels before 7.36, whose message is shorter. */
  readonly flags2: number;
}

/** What the kernel offers when it opens the session. The caller has checked the request's length. */
export function decodeFuseInit(words: Uint32Array, at: number): FuseInit {
  const body = at + BODY;
  const extended = (words[at] as number) >= FUSE_IN_HEADER_BYTES + 20;
  return {
    major: words[body] as number,
    minor: words[body + 1] as number,
    maxReadaheadBytes: words[body + 2] as number,
    flags: words[body + 3] as number,
    flags2: extended ? words[body + 4] as number : 0,
  };
}

/** Writes `struct fuse_out_header`. @param error 0 or a positive errno. @returns bytes of the whole reply. */
export function encodeFuseOutHeader(
  words: Uint32Array,
  at: number,
  bodyBytes: number,
  error: number,
  uniqueLow: number,
  uniqueHigh: number,
): number {
  const bytes = FUSE_OUT_HEADER_BYTES + bodyBytes;
  words[at] = bytes;
  words[at + 1] = -error;
  words[at + 2] = uniqueLow;
  words[at + 3] = uniqueHigh;
  return bytes;
}

/**
 * FUSE_NOTIFY_RESEND: asks the kernel for all requests that were read and not answered once more, under uniques
 * that differ in their highest bit (7.40, where INIT granted it). @returns the whole message.
 */
export function encodeFuseResend(): Uint8Array<ArrayBuffer> {
  const words = new Uint32Array(FUSE_OUT_HEADER_BYTES / 4);
  encodeFuseOutHeader(words, 0, 0, -FUSE_NOTIFY.resend, 0, 0);
  return new Uint8Array(words.buffer);
}

export interface FuseInitReply {
  /** What the kernel asked for: flags that it does not know are left out. */
  readonly asked: FuseInit;
  readonly maxIoBytes: number;
  /** Asynchronous requests that may be in flight. */
  readonly maxBackground: number;
}

/** Body of INIT's answer. @returns its bytes. */
export function encodeFuseInitReply(words: Uint32Array, at: number, reply: FuseInitReply): number {
  const { asked, maxIoBytes } = reply;
  const F = FUSE_INIT_FLAG;
  const wanted = F.asyncRead | F.bigWrites | F.asyncDio | F.maxPages | F.initExt;
  const background = Math.min(reply.maxBackground, 0xffff);
  words.fill(0, at, at + 16);
  words[at] = FUSE_MAJOR;
  words[at + 1] = Math.min(asked.minor, FUSE_MINOR);
  words[at + 2] = Math.min(asked.maxReadaheadBytes, maxIoBytes);
  words[at + 3] = wanted & asked.flags;
  words[at + 4] = background | background << 16;
  words[at + 5] = maxIoBytes;
  words[at + 6] = 1;
  words[at + 7] = Math.ceil(maxIoBytes / 4096);
  words[at + 8] = FUSE_INIT_FLAG2.hasResend & asked.flags2;
  return 64;
}

export interface FuseAttributes {
  readonly sizeBytes: number;
  /** Seconds since the epoch, for all three times. */
  readonly timeSeconds: number;
  readonly mode: number;
}

/** Body of GETATTR's and SETATTR's answer: valid for no time at all, so that a new size is seen at once. @returns its bytes. */
export function encodeFuseAttrReply(
  words: Uint32Array,
  at: number,
  attributes: FuseAttributes,
): number {
  words.fill(0, at, at + 26);
  const attr = at + 4;
  words[attr] = 1;
  putU64(words, attr + 2, attributes.sizeBytes);
  putU64(words, attr + 4, Math.ceil(attributes.sizeBytes / 512));
  for (const time of [6, 8, 10]) putU64(words, attr + time, attributes.timeSeconds);
  words[attr + 15] = attributes.mode;
  words[attr + 16] = 1;
  words[attr + 20] = 4096;
  return 104;
}

/** Body of OPEN's answer. @returns its bytes. */
export function encodeFuseOpenReply(words: Uint32Array, at: number, openFlags: number): number {
  words.fill(0, at, at + 4);
  words[at] = 1;
  words[at + 2] = openFlags;
  return 16;
}

/** Body of WRITE's answer. @returns its bytes. */
export function encodeFuseWriteReply(words: Uint32Array, at: number, written: number): number {
  words[at] = written;
  words[at + 1] = 0;
  return 8;
}

/** Body of STATFS's answer: a full file system of one file, in blocks of 4 KiB. @returns its bytes. */
export function encodeFuseStatfsReply(words: Uint32Array, at: number, sizeBytes: number): number {
  words.fill(0, at, at + 20);
  putU64(words, at, Math.ceil(sizeBytes / 4096));
  words[at + 6] = 1;
  words[at + 10] = 4096;
  words[at + 11] = 255;
  words[at + 12] = 4096;
  return 80;
}

function u64(words: Uint32Array, at: number): number {
  return (words[at] as number) + (words[at + 1] as number) * TWO_32;
}

function putU64(words: Uint32Array, at: number, value: number): void {
  words[at] = value % TWO_32;
  words[at + 1] = value / TWO_32;
}
