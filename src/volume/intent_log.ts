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
  type IntentRecord,
  type RegionRun,
} from "../codec/mod.ts";
import type { DurableBlocks, VolumeFiles } from "./files.ts";
import type { Range } from "./link.ts";

/** Small enough to be compared quickly, large enough for a terabyte to need a bitmap of 32 KiB. */
export const REGION_BYTES = 4 * 2 ** 20;
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
  #closed = false;
  #waiters: Deferred<void>[] = [];

  private constructor(
    blocks: DurableBlocks,
    turns: Turns,
    regions: number,
    sequence: bigint,
    hot: readonly RegionRun[],
  ) {
    this.#blocks = blocks;
    this.#turns = turns;
    this.#regions = regions;
    this.#sequence = sequence;
    const bitmap = () => new Uint32Array(Math.ceil(regions / 32));
    [this.#hot, this.#touched, this.#wanted] = [bitmap(), bitmap(), bitmap()];
    for (const run of hot) setRun(this.#hot, run);
  }

  /** Makes a log for a map that is durable as it is. @param all every region is hot. @throws {PsmaError} sys/... */
  static async create(
    files: VolumeFiles,
    turns: Turns,
    path: string,
    sizeBytes: number,
    { all }: { all: boolean },
  ): Promise<IntentLog> {
    const regions = Math.ceil(sizeBytes / REGION_BYTES);
    const runs = all && regions > 0 ? [{ first: 0, count: regions }] : [];
    const bytes = new Uint8Array(INTENT_LOG_BYTES);
    for (const sequence of [0n, 1n]) {
      const block = encodeIntentBlock({ sequence, region_bytes: REGION_BYTES, regions, runs });
      bytes.set(block, intentBlockAt(sequence));
    }
    await files.replace(path, bytes);
    return new IntentLog(await files.openBlocks(path), turns, regions, 2n, runs);
  }

  /**
   * Goes on with the log of a process that has ended. Its last block may be in the page cache alone: it is
   * written again, the same, before anything relies on it.
   * @returns what is hot, as byte ranges too. @throws {PsmaError} state/intent-log, sys/...
   */
  static async open(
    files: VolumeFiles,
    turns: Turns,
    path: string,
    sizeBytes: number,
  ): Promise<{ log: IntentLog; hot: readonly Range[] }> {
    // Opened first: only then is nothing of the ended process under way any more.
    const blocks = await files.openBlocks(path);
    try {
      const content = decodeIntentLog(files.read(path) ?? new Uint8Array(0));
      const regions = Math.ceil(sizeBytes / REGION_BYTES);
      if (!content || !fits(content.last, regions)) throw unreadable(path);
      const { last, next_sequence } = content;
      await blocks.write(intentBlockAt(last.sequence), encodeIntentBlock(last));
      const log = new IntentLog(blocks, turns, regions, next_sequence, last.runs);
      return { log, hot: last.runs.map((run) => rangeOf(run, sizeBytes)) };
    } catch (error) {
      blocks.close();
      throw error;
    }
  }

  get hotRegions(): number {
    let count = 0;
    for (const word of this.#hot) for (let bits = word; bits !== 0; bits &= bits - 1) count++;
    return count;
  }

  /**
   * Hot path. @returns whether bits of the map may change now in [at, at + length); if not, `want` it and ask
   * again after `onHot`. What is admitted must be changed before anything is awaited, or be told by `eachWrite`.
   */
  admits(at: number, length: number): boolean {
    const first = Math.floor(at / REGION_BYTES), end = Math.floor((at + length - 1) / REGION_BYTES);
    for (let region = first; region <= end; region++) {
      if (((this.#hot[region >>> 5] as number) & (1 << (region & 31))) === 0) return false;
    }
    for (let region = first; region <= end; region++) setBit(this.#touched, region);
    return true;
  }

  /** Hot path. The range becomes hot with the next block. */
  want(at: number, length: number): void {
    const end = Math.floor((at + length - 1) / REGION_BYTES);
    for (let region = Math.floor(at / REGION_BYTES); region <= end; region++) {
      setBit(this.#wanted, region);
    }
    this.#anyWanted = true;
    if (!this.#isWriting) this.#begin();
  }

  /** Resolves when the range is hot, or the log is closed; ask `admits` then. */
  async prepare({ at, length }: Range): Promise<void> {
    while (!this.admits(at, length)) {
      this.want(at, length);
      const hot = this.#turns.deferred<void>();
      this.#waiters.push(hot);
      await hot.promise;
    }
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

  /** Ends the block that is being written, and admits everything from then on: nobody's map is spoken of now. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#hot.fill(0xffffffff);
    this.#tellHot();
    await this.#writing;
    this.#blocks.close();
  }

  #touch(at: number, length: number) {
    if (length === 0) return;
    const end = Math.floor((at + length - 1) / REGION_BYTES);
    for (let region = Math.floor(at / REGION_BYTES); region <= end; region++) {
      setBit(this.#touched, region);
    }
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
        if (settling.isSettled(this.#rangeOf({ first: region, count: 1 }))) continue;
        candidates[region >>> 5] = (candidates[region >>> 5] as number) & ~(1 << (region & 31));
      }
    }
  }

  #rangeOf(run: RegionRun): Range {
    return rangeOf(run, this.#regions * REGION_BYTES);
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
    const record = { sequence, region_bytes: REGION_BYTES, regions: this.#regions, runs };
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

function fits({ region_bytes, regions, runs }: IntentRecord, expected: number): boolean {
  return region_bytes === REGION_BYTES && regions === expected &&
    runs.every(({ first, count }) => count > 0 && first + count <= regions);
}

function unreadable(path: string): PsmaError {
  return new PsmaError("state/intent-log", `Cannot read ${path}: the log is damaged`, {
    hint: "Everything is compared or copied again; nothing is lost.",
  });
}

function rangeOf({ first, count }: RegionRun, sizeBytes: number): Range {
  const at = first * REGION_BYTES;
  return { at, length: Math.min(count * REGION_BYTES, sizeBytes - at) };
}

function setBit(words: Uint32Array, index: number) {
  words[index >>> 5] = (words[index >>> 5] as number) | (1 << (index & 31));
}

function setRun(words: Uint32Array, { first, count }: RegionRun) {
  for (let region = first; region < first + count; region++) setBit(words, region);
}

function addAll(to: Uint32Array, from: Uint32Array) {
  for (let i = 0; i < to.length; i++) to[i] = (to[i] as number) | (from[i] as number);
}

function isEmpty(words: Uint32Array): boolean {
  return words.every((word) => word === 0);
}

function runsOf(words: Uint32Array): RegionRun[] {
  const runs: RegionRun[] = [];
  const has = (region: number) => ((words[region >>> 5] ?? 0) & (1 << (region & 31))) !== 0;
  for (let first = 0; first < words.length * 32; first++) {
    if (words[first >>> 5] === 0) first |= 31;
    else if (has(first)) {
      let end = first;
      while (has(end)) end++;
      runs.push({ first, count: end - first });
      first = end;
    }
  }
  return runs;
}

/** At most `most` runs that cover these: the smallest gaps are closed. */
function closeGaps(runs: RegionRun[], most: number): RegionRun[] {
  if (runs.length <= most) return runs;
  const gapBefore = (i: number) => {
    const run = runs[i] as RegionRun, before = runs[i - 1] as RegionRun;
    return run.first - before.first - before.count;
  };
  const order = runs.slice(1).map((_, i) => i + 1).sort((a, b) => gapBefore(a) - gapBefore(b));
  const closed = new Set(order.slice(0, runs.length - most));
  const merged: { first: number; count: number }[] = [];
  runs.forEach(({ first, count }, i) => {
    const before = merged.at(-1);
    if (before && closed.has(i)) before.count = first + count - before.first;
    else merged.push({ first, count });
  });
  return merged;
}
