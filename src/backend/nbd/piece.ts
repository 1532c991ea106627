/** What to ask an NBD server next for an operation, by the means that the server has. Hot path. */
import { NBD_CMD, NBD_CMD_FLAG, NBD_FLAG } from "../../codec/mod.ts";
import { can, type NbdOffer } from "./offer.ts";
import { OPERATION, OPERATION_FLAG, type Operations } from "../operations.ts";
import { ZERO_BYTES, zeros } from "../zeros.ts";

/** Zeroing that the server says is fast: below its 32-bit length, and a multiple of any block. */
const FAST_ZERO_BYTES_MAX = 1 << 30;
/** Zeroing that may be as slow as writing: no more than a slow store does well within the time limit. */
const SLOW_ZERO_BYTES_MAX = 1 << 27;

/** What is being done for an operation, in `operations.scratch`. */
export const STEP = { itself: 0, writingZeros: 1, flushing: 2, zeroingSlowly: 3 } as const;

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
  } else if (step !== STEP.writingZeros && can(offer, NBD_FLAG.sendWriteZeroes)) {
    const fast = mustBeFast(operations, op) || triesFastZero(operations, op, offer);
    into.type = NBD_CMD.writeZeroes;
    into.length = Math.min(left, fast ? FAST_ZERO_BYTES_MAX : SLOW_ZERO_BYTES_MAX);
    if (fast) into.flags |= NBD_CMD_FLAG.fastZero;
    if ((asked & OPERATION_FLAG.noHole) !== 0) into.flags |= NBD_CMD_FLAG.noHole;
  } else {
    into.length = Math.min(into.length, ZERO_BYTES);
    into.payload = zeros().address;
  }
}

/** True when zeros were asked for only if they are fast, and the server would not say so. */
export function isTooSlow(operations: Operations, op: number, offer: NbdOffer): boolean {
  return mustBeFast(operations, op) && !can(offer, NBD_FLAG.sendFastZero);
}

function mustBeFast(operations: Operations, op: number): boolean {
  return operations.code[op] === OPERATION.writeZeroes &&
    ((operations.flags[op] as number) & OPERATION_FLAG.fastZero) !== 0;
}

/** True when FUA was asked for and must be made of a flush. */
export function needsFlush(operations: Operations, op: number, offer: NbdOffer): boolean {
  return operations.code[op] !== OPERATION.read && !can(offer, NBD_FLAG.sendFua) &&
    ((operations.flags[op] as number) & OPERATION_FLAG.fua) !== 0;
}

/**
 * Begins an operation anew whose durability is made by a flush: a server that died has lost what it had
 * answered, and the flush that follows would say nothing of it.
 */
export function restartUnflushed(operations: Operations, op: number, offer: NbdOffer): void {
  if (!needsFlush(operations, op, offer)) return;
  operations.progress[op] = 0;
  operations.scratch[op] = STEP.itself;
}

/** True when the next piece tries whether zeroing is fast, because it is large. */
function triesFastZero(operations: Operations, op: number, offer: NbdOffer): boolean {
  const left = (operations.length[op] as number) - (operations.progress[op] as number);
  return operations.scratch[op] === STEP.itself && left > SLOW_ZERO_BYTES_MAX &&
    can(offer, NBD_FLAG.sendFastZero);
}

/**
 * What to try after a request for zeros that the server cannot or will not do: smaller ones after a large
 * one that was to be fast, else zeros written.
 * @returns undefined when it was no such request.
 */
export function stepAfterRefusedZero(
  operations: Operations,
  op: number,
  offer: NbdOffer,
): number | undefined {
  const code = operations.code[op] as number, step = operations.scratch[op] as number;
  const zeroing = code === OPERATION.trim || code === OPERATION.writeZeroes;
  if (!zeroing || mustBeFast(operations, op)) return undefined;
  if (step !== STEP.itself && step !== STEP.zeroingSlowly) return undefined;
  return triesFastZero(operations, op, offer) ? STEP.zeroingSlowly : STEP.writingZeros;
}
