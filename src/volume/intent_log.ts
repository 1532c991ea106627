/**
 * The write-intent log: which regions of a volume may, after a power loss, be other than its change map on disk
 * says. A region is hot or cold, and the invariant is: in a cold region no bit of the map changes, all its bits
 * are on disk, and both sides hold durably what they say. So before any bit of a region changes, the region is
 * hot durably; and whatever mixture of the map's pages a power loss leaves, it is right where the log is cold.
 *
 * A region becomes hot with the next block that is written, and cold again by a cycle of `cool`. A block that
 * would tell of too many runs closes the smallest gaps between them: more than needed may always be hot.
 *
 * Not promised: anything of a disk that calls durable what it loses.
 * Hot path: `admits` and `want` allocate nothing while a block is being written, nor where all is hot.
 */
import { assert, type Deferred, PsmaError, type Turns } from "../core/mod.ts";
import {
  decodeIntentLog,
  encodeIntentBlock,
  INTENT_LOG_BYTES,
  INTENT_RUNS_MAX,
  intentBlockAt,
  type IntentLogContent,
  type IntentRecord,
  type RegionRun,
} from "../codec/mod.ts";
import { CHUNK_BYTES } from "./change_map.ts";
import type { DurableBlocks, VolumeFiles } from "./files.ts";
import type { Range } from "./range.ts";
import {
  addAll,
  clearBit,
  closeGaps,
  countBits,
  hasBit,
  isEmpty,
  runsOf,
  setBit,
  setRun,
} from "./bitmap.ts";

/** Small enough to be compared quickly, large enough for a terabyte to need a bitmap of 32 KiB. */
export const REGION_BYTES = 4 * 2 ** 20;
/** A smaller volume is taken in smaller regions, down to one chunk, so that one write makes little of it hot. */
const REGIONS_MIN = 256;
const RETRY_MS_MIN = 20, RETRY_MS_MAX = 1000;

/** What cooling needs of the mirror whose map it is. */
export interface Settling {
  /** Calls `visit` for every write under way, those that nobody waits for any more among them. */
  eachWrite(visit: (at: number, length: number) => void): void;
  /** @returns whether the side holds durably what was written before the call. */
  flushSource(): Promise<boolean>;
  flushTarget(): Promise<boolean>;
  /** Nothing there is being copied or compared, and nothing is unstable. */
  isSettled(range: Range): boolean;
  /** Makes the map durable. @throws {PsmaError} sys/... */
  syncMap(): Promise<void>;
}

export class IntentLog {
  /** Called when more regions are hot: who waits may ask again. */
  onHot: () => void = () => {};
  /** Called each time a block could not be written; it is tried again, and nothing becomes hot meanwhile. */
  onFailed: (error: unknown) => void = () => {};
  readonly #blocks: DurableBlocks;
  readonly #turns: Turns;
  readonly #regions: number;
  readonly #regionBytes: number;
  /** Exact: regions are a power of two long. */
  readonly #regionsPerByte: number;
  /** Durably hot, and not about to become cold. */
  readonly #hot: Uint32Array;
  /** Asked for since the last cycle of cooling began. */
  readonly #touched: Uint32Array;
  /** To be hot with the next block. */
  readonly #wanted: Uint32Array;
  /** To be cold with the next block, where nothing was touched until it is built. */
  #leaving: Uint32Array | undefined;
  #anyWanted = false;
  #sequence: bigint;
  #isWriting = false;
  #writing: Promise<void> | undefined;
  #cooling = false;
  #closed: Promise<void> | undefined;
  #waiters: Deferred<void>[] = [];

  private constructor(
    blocks: DurableBlocks,
    turns: Turns,
    { regions, region_bytes, runs }: IntentRecord,
    nextSequence: bigint,
  ) {
    this.#blocks = blocks;
    this.#turns = turns;
    this.#regions = regions;
    this.#regionBytes = region_bytes;
    this.#regionsPerByte = 1 / region_bytes;
    this.#sequence = nextSequence;
    const bitmap = () => new Uint32Array(Math.ceil(regions / 32));
    [this.#hot, this.#touched, this.#wanted] = [bitmap(), bitmap(), bitmap()];
    for (const run of runs) setRun(this.#hot, run);
  }

  /** Makes a log for a map that is durable as it is. @param all every region is hot. @throws {PsmaError} sys/... */
  static async create(
    files: VolumeFiles,
    turns: Turns,
    path: string,
    sizeBytes: number,
    { all, regionBytes = regionBytesOf(sizeBytes) }: { all: boolean; regionBytes?: number },
  ): Promise<IntentLog> {
    const regions = Math.ceil(sizeBytes / regionBytes);
    const record: IntentRecord = {
      sequence: 0n,
      region_bytes: regionBytes,
      regions,
      runs: all && regions > 0 ? [{ first: 0, count: regions }] : [],
    };
    const bytes = new Uint8Array(INTENT_LOG_BYTES);
    for (const sequence of [0n, 1n]) {
      bytes.set(encodeIntentBlock({ ...record, sequence }), intentBlockAt(sequence));
    }
    await files.replace(path, bytes);
    return new IntentLog(files.openBlocks(path), turns, record, 2n);
  }

  /**
   * Goes on with the log of a process that has ended. Its last block may be in the page cache alone: it is
   * written again, the same, before anything relies on it. @throws {PsmaError} state/intent-log, state/in-use, sys/...
   */
  static async open(
    files: VolumeFiles,
    turns: Turns,
    path: string,
    sizeBytes: number,
  ): Promise<IntentLog> {
    // Opened first: only then is nothing of the ended process under way any more.
    const blocks = files.openBlocks(path);
    try {
      const content = contentOf(files, path, sizeBytes);
      if (!content) throw unreadable(path);
      const { last, next_sequence } = content;
      await blocks.write(intentBlockAt(last.sequence), encodeIntentBlock(last));
      return new IntentLog(blocks, turns, last, next_sequence);
    } catch (error) {
      blocks.close();
      throw error;
    }
  }

  /** What a log says to be hot; undefined where there is none that can be read: then all may have been. */
  static hotIn(files: VolumeFiles, path: string, sizeBytes: number): readonly Range[] | undefined {
    const content = contentOf(files, path, sizeBytes);
    return content?.last.runs.map((run) => rangeOf(run, content.last.region_bytes, sizeBytes));
  }

  get hotRegions(): number {
    return countBits(this.#hot);
  }

  /** What a power loss now would cost a comparison, about. */
  get hotBytes(): number {
    return this.hotRegions * this.#regionBytes;
  }

  /**
   * Hot path. @returns whether bits of the map may change now in [at, at + length); if not, `want` it and ask
   * again after `onHot`. What is admitted must be changed before anything is awaited, or be told by `eachWrite`.
   */
  admits(at: number, length: number): boolean {
    const first = this.#regionAt(at), end = this.#regionAt(at + length - 1);
    for (let region = first; region <= end; region++) {
      if (!hasBit(this.#hot, region)) return false;
    }
    for (let region = first; region <= end; region++) setBit(this.#touched, region);
    return true;
  }

  /** Hot path. The range becomes hot with the next block. */
  want(at: number, length: number): void {
    const end = this.#regionAt(at + length - 1);
    for (let region = this.#regionAt(at); region <= end; region++) setBit(this.#wanted, region);
    this.#anyWanted = true;
    if (!this.#isWriting) this.#begin();
  }

  /** Resolves when all of it is hot, or the log is closed; ask `admits` then. */
  async prepare(ranges: readonly Range[]): Promise<void> {
    while (!this.#admitsAll(ranges)) {
      for (const { at, length } of ranges) this.want(at, length);
      const hot = this.#turns.deferred<void>();
      this.#waiters.push(hot);
      await hot.promise;
    }
  }

  #admitsAll(ranges: readonly Range[]): boolean {
    return ranges.every(({ at, length }) => this.admits(at, length));
  }

  #regionAt(at: number): number {
    return Math.floor(at * this.#regionsPerByte);
  }

  /**
   * One cycle: what was hot and has not been touched since the cycle before becomes cold, where it is settled.
   * @throws {PsmaError} sys/... when the map cannot be made durable; nothing became cold then.
   */
  async cool(settling: Settling): Promise<void> {
    assert(!this.#cooling, "one cycle of cooling at a time");
    this.#cooling = true;
    try {
      await this.#cool(settling);
    } finally {
      this.#cooling = false;
    }
  }

  async #cool(settling: Settling) {
    const candidates = this.#hot.slice();
    this.#keepUntouched(candidates);
    this.#touched.fill(0);
    settling.eachWrite((at, length) => this.#touch(at, length));
    this.#keepUntouched(candidates);
    if (isEmpty(candidates)) return;
    if (!await settling.flushSource()) return;
    if (!this.#allSettled(candidates, settling)) await settling.flushTarget();
    // Whatever was flushed and when it began: what counts is what the map says now.
    this.#keepUntouched(candidates);
    this.#keepSettled(candidates, settling);
    if (isEmpty(candidates)) return;
    await settling.syncMap();
    if (this.#closed) return;
    this.#leaving = candidates;
    if (!this.#isWriting) this.#begin();
    await this.#writing;
  }

  /**
   * Ends the block that is being written, and admits everything from then on: nobody's map is spoken of now.
   * What the file says stays as it is. Idempotent.
   */
  close(): Promise<void> {
    return this.#closed ??= this.#close();
  }

  async #close() {
    this.#hot.fill(0xffffffff);
    this.#tellHot();
    // `#closed` is set by now: no further block is begun.
    await null;
    await this.#writing;
    this.#blocks.close();
  }

  #touch(at: number, length: number) {
    if (length === 0) return;
    const end = this.#regionAt(at + length - 1);
    for (let region = this.#regionAt(at); region <= end; region++) setBit(this.#touched, region);
  }

  #keepUntouched(candidates: Uint32Array) {
    for (let i = 0; i < candidates.length; i++) {
      candidates[i] = (candidates[i] as number) & ~(this.#touched[i] as number);
    }
  }

  #allSettled(candidates: Uint32Array, settling: Settling): boolean {
    return runsOf(candidates).every((run) => settling.isSettled(this.#rangeOf(run)));
  }

  #keepSettled(candidates: Uint32Array, settling: Settling) {
    for (const { first, count } of runsOf(candidates)) {
      for (let region = first; region < first + count; region++) {
        if (!settling.isSettled(this.#rangeOf({ first: region, count: 1 }))) {
          clearBit(candidates, region);
        }
      }
    }
  }

  #rangeOf(run: RegionRun): Range {
    return rangeOf(run, this.#regionBytes, this.#regions * this.#regionBytes);
  }

  #begin() {
    this.#isWriting = true;
    this.#writing = this.#write();
  }

  /** Blocks, one after the other, until there is nothing more to tell. Never rejects. */
  async #write() {
    let retryMs = RETRY_MS_MIN;
    while (!this.#closed && (this.#anyWanted || this.#leaving !== undefined)) {
      const wanted = this.#takeWanted();
      const runs = this.#nextRuns(wanted);
      if (await this.#writeBlock(runs)) {
        retryMs = RETRY_MS_MIN;
        if (!this.#closed) this.#nowHot(runs, wanted);
      } else {
        addAll(this.#wanted, wanted);
        this.#anyWanted = true;
        await this.#turns.sleep(retryMs);
        retryMs = Math.min(2 * retryMs, RETRY_MS_MAX);
      }
    }
    // Here, not when the promise is heard of: what is wanted in between would wait for ever.
    this.#isWriting = false;
  }

  #takeWanted(): Uint32Array {
    const wanted = this.#wanted.slice();
    this.#wanted.fill(0);
    this.#anyWanted = false;
    return wanted;
  }

  /** What leaves is cold from here on, not only once the block is durable: else a write could slip in. */
  #nextRuns(wanted: Uint32Array): RegionRun[] {
    if (this.#leaving) {
      this.#keepUntouched(this.#leaving);
      for (let i = 0; i < this.#hot.length; i++) {
        this.#hot[i] = (this.#hot[i] as number) & ~(this.#leaving[i] as number);
      }
      this.#leaving = undefined;
    }
    const next = this.#hot.slice();
    addAll(next, wanted);
    return closeGaps(runsOf(next), INTENT_RUNS_MAX);
  }

  /** @returns whether it is durable. */
  async #writeBlock(runs: readonly RegionRun[]): Promise<boolean> {
    const sequence = this.#sequence;
    const record = { sequence, region_bytes: this.#regionBytes, regions: this.#regions, runs };
    try {
      await this.#blocks.write(intentBlockAt(sequence), encodeIntentBlock(record));
      this.#sequence = sequence + 1n;
      return true;
    } catch (error) {
      // In the same place again, since the other one holds what counts, and by another number than what is there.
      this.#sequence = sequence + 2n;
      this.onFailed(error);
      return false;
    }
  }

  #nowHot(runs: readonly RegionRun[], wanted: Uint32Array) {
    for (const run of runs) setRun(this.#hot, run);
    // Not yet asked for again by those who wait, and not to leave before they have.
    addAll(this.#touched, wanted);
    this.#tellHot();
  }

  #tellHot() {
    for (const waiter of this.#waiters.splice(0)) waiter.resolve();
    this.onHot();
  }
}

/** The largest that leave the volume REGIONS_MIN of them. */
function regionBytesOf(sizeBytes: number): number {
  let bytes = REGION_BYTES;
  while (bytes > CHUNK_BYTES && sizeBytes < REGIONS_MIN * bytes) bytes /= 2;
  return bytes;
}

function contentOf(
  files: VolumeFiles,
  path: string,
  sizeBytes: number,
): IntentLogContent | undefined {
  const content = decodeIntentLog(files.read(path) ?? new Uint8Array(0));
  return content && fits(content.last, sizeBytes) ? content : undefined;
}

function fits({ region_bytes, regions, runs }: IntentRecord, sizeBytes: number): boolean {
  return region_bytes >= CHUNK_BYTES && Number.isInteger(Math.log2(region_bytes)) &&
    regions === Math.ceil(sizeBytes / region_bytes) &&
    runs.every(({ first, count }) => count > 0 && first + count <= regions);
}

function unreadable(path: string): PsmaError {
  return new PsmaError("state/intent-log", `Cannot read ${path}: the log is damaged`, {
    hint: "Everything is compared or copied again; nothing is lost.",
  });
}

function rangeOf({ first, count }: RegionRun, regionBytes: number, sizeBytes: number): Range {
  const at = first * regionBytes;
  return { at, length: Math.min(count * regionBytes, sizeBytes - at) };
}
