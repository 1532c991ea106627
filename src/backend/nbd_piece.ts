/** What to ask an NBD server next for an operation, by the means that the server has. Hot path. */
import { NBD_CMD, NBD_CMD_FLAG, NBD_FLAG } from "../codec/mod.ts";
import { allocateMemory, type Memory } from "../sys/mod.ts";
import type { NbdOffer } from "./nbd_handshake.ts";
import { OPERATION, OPERATION_FLAG, type Operations } from "./operations.ts";

const ZERO_BYTES = 1 << 20;
/** Write-zeroes has a 32-bit length; a piece stays well below and is a multiple of any block. */
const RANGE_BYTES_MAX = 1 << 30;

/** What is being done for an operation, in `operations.scratch`. */
export const STEP = { itself: 0, writingZeros: 1, flushing: 2 } as const;

/** One request to be, as a record that is used over and over. */
export interface Piece {
  /** NBD_CMD, or -1 when there is nothing to ask: a flush that the server does not have. */
  type: number;
  flags: number;
  at: number;
  length: number;
  /** Address of a write's bytes. */
  payload: number;
}

let zeros: Memory | undefined;

export function nextPiece(operations: Operations, op: number, offer: NbdOffer, into: Piece): void {
  const code = operations.code[op] as number, step = operations.scratch[op] as number;
  const progress = operations.progress[op] as number;
  const left = (operations.length[op] as number) - progress;
  into.at = (operations.at[op] as number) + progress;
  into.length = Math.min(left, offer.blockBytesMax);
  into.payload = 0;
  into.flags = 0;
  if (step === STEP.flushing || code === OPERATION.flush) {
    into.type = can(offer, NBD_FLAG.sendFlush) ? NBD_CMD.flush : -1;
    into.at = into.length = 0;
    return;
  }
  if (code === OPERATION.read) {
    into.type = NBD_CMD.read;
    return;
  }
  const asked = operations.flags[op] as number;
  if ((asked & OPERATION_FLAG.fua) !== 0 && can(offer, NBD_FLAG.sendFua)) {
    into.flags = NBD_CMD_FLAG.fua;
  }
  into.type = NBD_CMD.write;
  if (code === OPERATION.write) {
    into.payload = (operations.address[op] as number) + progress;
  } else if (step === STEP.itself && can(offer, NBD_FLAG.sendWriteZeroes)) {
    into.type = NBD_CMD.writeZeroes;
    into.length = Math.min(left, RANGE_BYTES_MAX);
    if ((asked & OPERATION_FLAG.noHole) !== 0) into.flags |= NBD_CMD_FLAG.noHole;
    if ((asked & OPERATION_FLAG.fastZero) !== 0) into.flags |= NBD_CMD_FLAG.fastZero;
  } else {
    zeros ??= allocateMemory(ZERO_BYTES);
    into.length = Math.min(into.length, ZERO_BYTES);
    into.payload = zeros.address;
  }
}

/** True when zeros were asked for only if they are fast, and the server would not say so. */
export function isTooSlow(operations: Operations, op: number, offer: NbdOffer): boolean {
  return ((operations.flags[op] as number) & OPERATION_FLAG.fastZero) !== 0 &&
    operations.code[op] === OPERATION.writeZeroes && !can(offer, NBD_FLAG.sendFastZero);
}

/** True when FUA was asked for and must be made of a flush. */
export function needsFlush(operations: Operations, op: number, offer: NbdOffer): boolean {
  return operations.code[op] !== OPERATION.read && !can(offer, NBD_FLAG.sendFua) &&
    ((operations.flags[op] as number) & OPERATION_FLAG.fua) !== 0;
}

export function can(offer: NbdOffer, flag: number): boolean {
  return (offer.flags & flag) !== 0;
}
