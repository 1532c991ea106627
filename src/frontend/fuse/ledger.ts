/**
 * Which slots of the arena hold a request that the kernel has handed over and that is not answered: what the next
 * server must replay where the kernel cannot send again (before Linux 6.9).
 *
 * A held arena is a memory file: the slots, then one word per slot, 0 or the mark of the export that reads into
 * it. The word is set before a request is read and cleared when its answer has left; a slot's request header
 * keeps length 0 until the kernel has written it. So after a kill at any moment the marked slots with a header
 * are the unanswered requests, and perhaps some whose answer had just left. Executing those once more is
 * harmless: answers are struck off in the order in which they left, so whatever was asked for after one of
 * them is still in the ledger too, and is executed after it.
 *
 * The same words are kept in ordinary memory where nobody will read them: that costs less than to ask.
 */
import { FUSE_WRITE_PAYLOAD_BYTES, fuseUniqueHigh, fuseUniqueLow } from "../../codec/mod.ts";
import type { Memory } from "../../core/mod.ts";
import { createDataFile, mapFile } from "../../sys/mod.ts";
import { HEADROOM, type Requests, slotBytes } from "../../volume/mod.ts";

const PAGE_BYTES = 4096;
const TWO_32 = 4294967296;

/** An arena for `Requests` that a holder can keep. */
export interface HeldArena {
  readonly fd: number;
  readonly memory: Memory;
}

/** @throws {PsmaError} sys/errno-N. */
export function createHeldArena(slots: number, maxIo: number): HeldArena {
  const bytes = heldArenaBytes(slots, maxIo);
  const fd = createDataFile("psma-requests", bytes);
  return { fd, memory: mapFile(fd, bytes) };
}

/** Bytes of a held arena's file. */
export function heldArenaBytes(slots: number, maxIo: number): number {
  return slots * slotBytes(maxIo) + Math.ceil(slots * 4 / PAGE_BYTES) * PAGE_BYTES;
}

/** The words of a live arena. */
export function ledgerOf({ arena, count, maxIo }: Requests): Uint32Array {
  const { buffer, byteOffset, length } = arena.bytes;
  const at = count * slotBytes(maxIo);
  return length >= at + count * 4
    ? new Uint32Array(buffer, byteOffset + at, count)
    : new Uint32Array(count);
}

export interface DeadArena {
  readonly memory: Memory;
  readonly slots: number;
  readonly maxIo: number;
}

/** @returns the slots that hold unanswered requests of the export with this mark, in the order of their making. */
export function unansweredSlots(arena: DeadArena, mark: number): number[] {
  const { memory: { bytes }, slots } = arena;
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
  const marks = marksOf(arena);
  return Array.from({ length: slots }, (_, slot) => slot)
    .filter((slot) => marks[slot] === mark && words[headerAt(arena, slot) / 4] !== 0)
    .sort((a, b) => uniqueOf(words, arena, a) - uniqueOf(words, arena, b));
}

/** The whole message in a slot, to be copied. */
export function requestIn(arena: DeadArena, slot: number): Uint8Array {
  const at = headerAt(arena, slot), { bytes } = arena.memory;
  const length = new DataView(bytes.buffer, bytes.byteOffset + at).getUint32(0, true);
  return bytes.subarray(at, at + Math.min(length, FUSE_WRITE_PAYLOAD_BYTES + arena.maxIo));
}

/** Says that a slot's request is answered. */
export function strikeOff(arena: DeadArena, slot: number): void {
  marksOf(arena)[slot] = 0;
}

function marksOf({ memory: { bytes }, slots, maxIo }: DeadArena): Uint32Array {
  return new Uint32Array(bytes.buffer, bytes.byteOffset + slots * slotBytes(maxIo), slots);
}

function headerAt({ maxIo }: DeadArena, slot: number): number {
  return slot * slotBytes(maxIo) + HEADROOM - FUSE_WRITE_PAYLOAD_BYTES;
}

/** Uniques rise by steps; their highest bit only says that a request was sent again. */
function uniqueOf(words: Uint32Array, arena: DeadArena, slot: number): number {
  const at = headerAt(arena, slot) / 4;
  return fuseUniqueLow(words, at) + (fuseUniqueHigh(words, at) & 0x7fffffff) * TWO_32;
}
