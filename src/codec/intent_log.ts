/**
 * The write-intent log's file: which regions of a volume were hot, twice, in two blocks of 4 KiB that are
 * written in turns. Little-endian. A block is eight sectors of 512 bytes, each sealed by itself with the block's
 * sequence number and a CRC32, because a power loss leaves any mixture of a block's old and new sectors: so what
 * was torn, and never took effect, is told apart from what was whole and has rotted since.
 * Not told apart: a write that the disk called durable and lost as a whole.
 *
 * Sector: magic u32, version u16, index u16, sequence u64, region_bytes u32, regions u32, runs of the block u32,
 * CRC32 of the sector without this field u32, then up to 60 runs {first u32, count u32}; the rest is zeros.
 */
import { crc32 } from "node:zlib";
import { assert } from "../core/mod.ts";

const MAGIC = 0x474c4d50; // "PMLG"
const VERSION = 1;
const SECTOR_BYTES = 512, SECTORS = 8, HEAD_BYTES = 32, CRC_AT = 28, RUN_BYTES = 8;
const SECTOR_RUNS = (SECTOR_BYTES - HEAD_BYTES) / RUN_BYTES;
const INTENT_BLOCK_BYTES = SECTOR_BYTES * SECTORS;
export const INTENT_LOG_BYTES = 2 * INTENT_BLOCK_BYTES;
/** One block tells of no more runs. */
export const INTENT_RUNS_MAX = SECTORS * SECTOR_RUNS;

/** Regions first to first + count - 1. */
export interface RegionRun {
  readonly first: number;
  readonly count: number;
}

export interface IntentRecord {
  /** Grows with every block that is written. */
  readonly sequence: bigint;
  readonly region_bytes: number;
  /** Of the whole volume. */
  readonly regions: number;
  /** The hot ones, ascending, at most INTENT_RUNS_MAX. */
  readonly runs: readonly RegionRun[];
}

export interface IntentLogContent {
  /** The last block that was wholly written. */
  readonly last: IntentRecord;
  /** For the next block: of the other place, and greater than any that is left there of a torn one. */
  readonly next_sequence: bigint;
}

/** Where in the file the block with this sequence number belongs: never over the one before it. */
export function intentBlockAt(sequence: bigint): number {
  return Number(sequence % 2n) * INTENT_BLOCK_BYTES;
}

/** One block, for `intentBlockAt(sequence)`. */
export function encodeIntentBlock(record: IntentRecord): Uint8Array<ArrayBuffer> {
  assert(record.runs.length <= INTENT_RUNS_MAX, "an intent block has no room for so many runs");
  const bytes = new Uint8Array(INTENT_BLOCK_BYTES);
  for (let index = 0; index < SECTORS; index++) {
    const sector = bytes.subarray(index * SECTOR_BYTES, (index + 1) * SECTOR_BYTES);
    const view = new DataView(sector.buffer, sector.byteOffset);
    view.setUint32(0, MAGIC, true);
    view.setUint16(4, VERSION, true);
    view.setUint16(6, index, true);
    view.setBigUint64(8, record.sequence, true);
    view.setUint32(16, record.region_bytes, true);
    view.setUint32(20, record.regions, true);
    view.setUint32(24, record.runs.length, true);
    record.runs.slice(index * SECTOR_RUNS, (index + 1) * SECTOR_RUNS).forEach((run, i) => {
      view.setUint32(HEAD_BYTES + i * RUN_BYTES, run.first, true);
      view.setUint32(HEAD_BYTES + i * RUN_BYTES + 4, run.count, true);
    });
    view.setUint32(CRC_AT, sectorCrc(sector), true);
  }
  return bytes;
}

/**
 * What the file says. @param bytes all of them.
 * @returns undefined when that cannot be known: then every region may have been hot.
 */
export function decodeIntentLog(bytes: Uint8Array): IntentLogContent | undefined {
  if (bytes.length !== INTENT_LOG_BYTES) return undefined;
  const [even, odd] = [0, INTENT_BLOCK_BYTES].map((at) =>
    readBlock(bytes.subarray(at, at + INTENT_BLOCK_BYTES), at)
  ) as [Block, Block];
  const evenIsLater = (even.record?.sequence ?? -1n) > (odd.record?.sequence ?? -1n);
  const [later, other] = evenIsLater ? [even, odd] : [odd, even];
  const last = later.record;
  if (!last || !(other.record || wasTorn(other, last.sequence))) return undefined;
  let next_sequence = last.sequence + 1n;
  for (const seen of other.sequences) if (seen >= next_sequence) next_sequence = seen + 2n;
  return { last, next_sequence };
}

interface Block {
  /** Present when the block is whole. */
  readonly record: IntentRecord | undefined;
  /** Sequence numbers of the sectors that are whole. */
  readonly sequences: ReadonlySet<bigint>;
}

/**
 * True when the block cannot be a later one that was once whole: one of its sectors is older, or its sectors are
 * of several writes, of which the last one then never ended.
 */
function wasTorn({ sequences }: Block, sequence: bigint): boolean {
  return sequences.size > 1 || [...sequences].some((one) => one < sequence);
}

function readBlock(bytes: Uint8Array, at: number): Block {
  const sequences = new Set<bigint>(), runs: RegionRun[] = [];
  let whole = 0;
  for (let index = 0; index < SECTORS; index++) {
    const sector = bytes.subarray(index * SECTOR_BYTES, (index + 1) * SECTOR_BYTES);
    if (!isSector(sector, index, at)) continue;
    whole++;
    sequences.add(viewOf(sector).getBigUint64(8, true));
    readRuns(sector, index, runs);
  }
  if (whole < SECTORS || sequences.size !== 1) return { record: undefined, sequences };
  const view = viewOf(bytes);
  const record = {
    sequence: view.getBigUint64(8, true),
    region_bytes: view.getUint32(16, true),
    regions: view.getUint32(20, true),
    runs,
  };
  return { record, sequences };
}

function isSector(sector: Uint8Array, index: number, blockAt: number): boolean {
  const view = viewOf(sector);
  return view.getUint32(0, true) === MAGIC && view.getUint16(4, true) === VERSION &&
    view.getUint16(6, true) === index && view.getUint32(CRC_AT, true) === sectorCrc(sector) &&
    intentBlockAt(view.getBigUint64(8, true)) === blockAt;
}

function readRuns(sector: Uint8Array, index: number, runs: RegionRun[]) {
  const view = viewOf(sector);
  const here = Math.min(SECTOR_RUNS, view.getUint32(24, true) - index * SECTOR_RUNS);
  for (let i = 0; i < here; i++) {
    const at = HEAD_BYTES + i * RUN_BYTES;
    runs.push({ first: view.getUint32(at, true), count: view.getUint32(at + 4, true) });
  }
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function sectorCrc(sector: Uint8Array): number {
  return crc32(sector.subarray(HEAD_BYTES), crc32(sector.subarray(0, CRC_AT)));
}
