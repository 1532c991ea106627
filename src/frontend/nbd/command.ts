/** NBD commands as the volume's operations, and what a command may carry. Hot path: nothing allocates. */
import { NBD_CMD, NBD_CMD_FLAG, type NbdRequest } from "../../codec/mod.ts";
import { OPERATION, OPERATION_FLAG } from "../../volume/mod.ts";
import { REPLY_STYLE } from "./reply.ts";

/** Codes of what the session answers without the volume's operations, beside OPERATION in `requests.code`. */
export const SESSION_CODE = { blockStatus: 64 } as const;

/** In `requests.flags` beside OPERATION_FLAG: a read of which nothing is sent. */
export const QUIET_READ = 0x80;

/** @returns the volume's operation, a SESSION_CODE, or -1 for a command that we do not serve. */
export function operationCode(type: number): number {
  switch (type) {
    case NBD_CMD.read:
    case NBD_CMD.cache:
      return OPERATION.read;
    case NBD_CMD.write:
      return OPERATION.write;
    case NBD_CMD.flush:
      return OPERATION.flush;
    case NBD_CMD.trim:
      return OPERATION.trim;
    case NBD_CMD.writeZeroes:
      return OPERATION.writeZeroes;
    case NBD_CMD.blockStatus:
      return SESSION_CODE.blockStatus;
    default:
      return -1;
  }
}

/** The flags of a slot: OPERATION_FLAG bits, and QUIET_READ for a read that only warms the cache. */
export function operationFlags(type: number, flags: number): number {
  return ((flags & NBD_CMD_FLAG.fua) !== 0 ? OPERATION_FLAG.fua : 0) |
    ((flags & NBD_CMD_FLAG.noHole) !== 0 ? OPERATION_FLAG.noHole : 0) |
    ((flags & NBD_CMD_FLAG.fastZero) !== 0 ? OPERATION_FLAG.fastZero : 0) |
    (type === NBD_CMD.cache ? QUIET_READ : 0);
}

/**
 * True when a command carries only flags that it may: FUA anywhere, the others with the one command that
 * each is for, and only where they were negotiated.
 */
export function flagsFit(type: number, flags: number, style: number): boolean {
  return (flags & ~flagsOf(type, style)) === 0;
}

function flagsOf(type: number, style: number): number {
  const payload = style === REPLY_STYLE.extended ? NBD_CMD_FLAG.payloadLength : 0;
  switch (type) {
    case NBD_CMD.read:
      return NBD_CMD_FLAG.fua | (style === REPLY_STYLE.simple ? 0 : NBD_CMD_FLAG.df);
    case NBD_CMD.write:
      return NBD_CMD_FLAG.fua | payload;
    case NBD_CMD.writeZeroes:
      return NBD_CMD_FLAG.fua | NBD_CMD_FLAG.noHole | NBD_CMD_FLAG.fastZero;
    case NBD_CMD.blockStatus:
      return NBD_CMD_FLAG.fua | NBD_CMD_FLAG.reqOne | payload;
    default:
      return NBD_CMD_FLAG.fua;
  }
}

/**
 * Bytes that follow a request's header. A write always has them: QEMU leaves the flag out that extended
 * headers ask for, and no other reading keeps the stream in step with it.
 */
export function payloadBytes(request: NbdRequest, style: number): number {
  if (request.type === NBD_CMD.write) return request.length;
  if (style !== REPLY_STYLE.extended) return 0;
  return (request.flags & NBD_CMD_FLAG.payloadLength) !== 0 ? request.length : 0;
}
