/**
 * Copies dirty extents from the source to the target through private buffers, several at a time.
 *
 * `tracking` rounds leave out extents that a write in flight touches (they stay dirty). `locked` rounds,
 * in write-through, hold new writes to an extent back while it is copied, so that an older copy never lands
 * on a newer write. In both, the dirty bit is cleared (and the unstable bit set) before the source is read,
 * and before that the extent's region is hot in the write-intent log, where there is one.
 */
import { errnoText, type Memory, type MemorySource, PsmaError } from "../core/mod.ts";
import { type BackendCalls, OPERATION } from "../backend/mod.ts";
import { CHECK, type MirrorLink, type Range, type Volume } from "../volume/mod.ts";
import type { DigestChecks } from "./checks.ts";
import { type Digest, isZero } from "./digest.ts";
import { BUSY_STEP_BYTES, IDLE_STEP_BYTES, type Pacer } from "./pace.ts";

export const EXTENT_BYTES = IDLE_STEP_BYTES;
const LANES = 8;
const PASSED_BY_MAX = 4096;
const FLUSH_EVERY_BYTES = 256 * 2 ** 20;
/** What is dirty so far ahead becomes hot with the same block of the log. */
const PREPARE_AHEAD_BYTES = 64 * 2 ** 20, PREPARE_AHEAD_EXTENTS = 64;

export interface CopierOptions {
  readonly volume: Volume;
  readonly link: MirrorLink;
  readonly calls: BackendCalls;
  readonly memory: MemorySource;
  readonly pacer: Pacer;
  readonly checks: DigestChecks;
  readonly digest: Digest;
}

export type CopyMode = "tracking" | "locked";

/** What may end a round before its end. */
export interface RoundLimits {
  readonly mostBytes?: number | null;
  readonly isFutile?: () => boolean;
}

export class Copier {
  copiedBytes = 0;
  readonly #buffers: Memory[];
  /** For digests besides the lanes. */
  readonly #spare: Memory[] = [];
  readonly #inFlight = new Set<Range>();
  #cursor = 0;
  /** Where a round that was to copy only so much has left off. */
  #resumeAt = 0;
  /** Dirty chunks that were passed by because somebody worked on them. */
  readonly #passedBy = new Set<number>();
  #sinceFlush = 0;
  #flushing: Promise<void> | undefined;
  #nextFlush: Promise<void> | undefined;
  #stop = false;
  #isOver = false;

  constructor(readonly options: CopierOptions) {
    this.#buffers = Array.from({ length: LANES }, () => options.memory.allocate(EXTENT_BYTES));
  }

  /** Ends the round that is under way, soon. @param forEver no other is begun. */
  stop(forEver = false): void {
    this.#stop = true;
    this.#isOver ||= forEver;
  }

  /**
   * One pass over the dirty bitmap. @param mostBytes ends after so much, and the next pass begins there.
   * @param isFutile true ends it early, too. @returns whether it came from the beginning to the end.
   * @throws {PsmaError} io/... when a copy failed: its extent is dirty again.
   */
  async round(
    mode: CopyMode,
    { mostBytes = null, isFutile = () => false }: RoundLimits = {},
  ): Promise<boolean> {
    const from = mostBytes === null ? 0 : this.#resumeAt;
    const endBytes = this.copiedBytes + (mostBytes ?? Infinity);
    const mayGoOn = () => !this.#stop && this.copiedBytes < endBytes && !isFutile();
    this.#cursor = from;
    this.#resumeAt = 0;
    this.#passedBy.clear();
    this.#stop = this.#isOver;
    const failures: unknown[] = [];
    await Promise.all(this.#buffers.map(async (buffer) => {
      try {
        while (mayGoOn() && await this.#copyNext(mode, buffer));
      } catch (error) {
        this.#stop = true;
        failures.push(error);
      }
    }));
    if (failures.length > 0) throw failures[0];
    const isOut = this.copiedBytes >= endBytes;
    if (isOut) this.#resumeAt = this.#cursor;
    return !isOut && from === 0 && !this.#stop && !isFutile();
  }

  /**
   * Copies what the last pass in tracking passed by. New writes there wait for those in flight, never for the
   * target. Call it when its checks are settled. @returns whether nothing is left of it.
   */
  async copyPassedBy(): Promise<boolean> {
    const { link, pacer, volume } = this.options, { map } = link, buffer = this.#buffers[0];
    let isAll = this.#passedBy.size < PASSED_BY_MAX;
    for (const chunk of this.#passedBy) {
      await pacer.admit(map.chunkBytes, () => this.#stop);
      if (this.#stop || buffer === undefined) return false;
      const at = chunk * map.chunkBytes;
      const range = { at, length: Math.min(map.chunkBytes, volume.sizeBytes - at) };
      await link.log?.prepare([range]);
      if (this.#stop) return false;
      await volume.lock(range);
      const isHot = link.log?.admits(range.at, range.length) !== false;
      const isDirty = map.isDirty(chunk), isFree = isHot && this.#isFree(chunk, "locked");
      if (isDirty && isFree) {
        link.setCheck(range, CHECK.pending);
        map.beginCopy(range.at, range.length);
      }
      volume.unlock(range);
      if (isDirty && isFree) await this.#copy(range, buffer);
      else {
        pacer.giveBack(map.chunkBytes);
        isAll &&= !isDirty;
      }
    }
    return isAll;
  }

  /** Makes durable what the target was sent before the call, and says so in the change map. */
  flushTarget(): Promise<void> {
    if (this.#nextFlush) return this.#nextFlush;
    if (this.#flushing === undefined) return this.#beginFlush();
    // The one that is under way need not cover what was sent since it began.
    return this.#nextFlush ??= this.#flushing.catch(() => {}).then(() => {
      this.#nextFlush = undefined;
      return this.#beginFlush();
    });
  }

  #beginFlush(): Promise<void> {
    return this.#flushing = this.#flush().finally(() => this.#flushing = undefined);
  }

  /** The digest of the source's bytes now. */
  async digestSource(range: Range): Promise<string> {
    const buffer = this.#spare.pop() ?? this.options.memory.allocate(EXTENT_BYTES);
    try {
      await this.#run("read the source", OPERATION.read, this.options.volume.active, range, buffer);
      return this.options.digest(buffer.bytes.subarray(0, range.length));
    } finally {
      this.#spare.push(buffer);
    }
  }

  /** Gives the buffers back, one at a time between requests. Only after the last round has ended. */
  async close(): Promise<void> {
    const { memory, calls } = this.options;
    for (const buffer of [...this.#buffers, ...this.#spare]) {
      memory.release(buffer);
      await calls.turns.sleep(0);
    }
  }

  async #flush() {
    const { volume, link, calls, checks } = this.options;
    link.map.beginFlush();
    volume.markWritesUnstable();
    for (const range of this.#inFlight) link.map.markUnstable(range.at, range.length);
    // Nor may it make anything count as stable whose digest has not been checked: a kill would forget the check.
    for (const range of checks.unsettled()) link.map.markUnstable(range.at, range.length);
    const errno = await calls.flush(link.target);
    link.map.flushed(errno === 0);
    if (errno === 0) return;
    // What it could not make durable it may have given up: the next flush would say nothing of it.
    link.targetLost();
    throw failed("flush the target", errno);
  }

  async #copyNext(mode: CopyMode, buffer: Memory): Promise<boolean> {
    const { pacer, link } = this.options;
    if (link.map.nextDirty(this.#cursor) < 0) return false;
    const stepBytes = mode === "locked" ? BUSY_STEP_BYTES : pacer.stepBytes;
    await pacer.admit(stepBytes, () => this.#stop);
    if (this.#stop) return false;
    // The application may have begun to work meanwhile: then the step is a small one.
    const range = this.#takeExtent(mode, Math.min(stepBytes, pacer.stepBytes));
    pacer.giveBack(stepBytes - (range?.length ?? 0));
    if (!range) return false;
    if (!await this.#copyExtent(mode, range, buffer)) {
      pacer.giveBack(range.length);
      return !this.#stop;
    }
    this.#sinceFlush += range.length;
    if (this.#sinceFlush >= FLUSH_EVERY_BYTES) {
      this.#sinceFlush = 0;
      await this.flushTarget();
    }
    return true;
  }

  /** The next run of dirty chunks that nobody works on; pending from here on. */
  #takeExtent(mode: CopyMode, mostBytes: number): Range | undefined {
    const { link, volume } = this.options, map = link.map;
    for (;;) {
      const first = map.nextDirty(this.#cursor);
      if (first < 0) return undefined;
      let end = first;
      const most = first + Math.max(1, Math.floor(mostBytes / map.chunkBytes));
      while (end < most && end < map.chunks && map.isDirty(end) && this.#isFree(end, mode)) end++;
      this.#cursor = Math.max(end, first + 1);
      if (end === first) {
        this.#passBy(first);
        continue;
      }
      const at = first * map.chunkBytes;
      const range = { at, length: Math.min(end * map.chunkBytes, volume.sizeBytes) - at };
      link.setCheck(range, CHECK.pending);
      return range;
    }
  }

  #passBy(chunk: number) {
    if (this.#passedBy.size < PASSED_BY_MAX) this.#passedBy.add(chunk);
  }

  #isFree(chunk: number, mode: CopyMode): boolean {
    const { link, volume } = this.options, bytes = link.map.chunkBytes;
    if (link.checkOf(chunk) !== CHECK.none) return false;
    return mode === "locked" || !volume.hasWriteIn({ at: chunk * bytes, length: bytes });
  }

  /** @returns false when it was left as it is: the round ends, or somebody has begun to write there. */
  async #copyExtent(mode: CopyMode, range: Range, buffer: Memory): Promise<boolean> {
    const { volume, link } = this.options, { log } = link;
    // Pending, so it stays hot from now on.
    if (log?.admits(range.at, range.length) === false) {
      await log.prepare(this.#ahead(range));
      if (this.#stop || (mode === "tracking" && volume.hasWriteIn(range))) {
        link.setCheck(range, CHECK.none);
        const { first, last } = link.chunksOf(range);
        for (let chunk = first; chunk <= last; chunk++) this.#passBy(chunk);
        return false;
      }
    }
    if (mode === "locked") await this.#copyLocked(range, buffer);
    else {
      link.map.beginCopy(range.at, range.length);
      await this.#copy(range, buffer);
    }
    return true;
  }

  /** The extent, and what is dirty behind it and will be its turn soon. */
  #ahead(range: Range): readonly Range[] {
    const { map } = this.options.link, ahead = [range];
    const last = Math.floor((range.at + PREPARE_AHEAD_BYTES) / map.chunkBytes);
    let chunk = map.nextDirty(this.#cursor);
    while (chunk >= 0 && chunk <= last && ahead.length < PREPARE_AHEAD_EXTENTS) {
      ahead.push({ at: chunk * map.chunkBytes, length: map.chunkBytes });
      chunk = map.nextDirty(chunk + EXTENT_BYTES / map.chunkBytes);
    }
    return ahead;
  }

  async #copyLocked(range: Range, buffer: Memory) {
    const { volume, link } = this.options;
    try {
      await volume.lock(range);
      if (!link.holdsLock(range)) return link.setCheck(range, CHECK.none);
      link.setCheck(range, CHECK.pending);
      link.map.beginCopy(range.at, range.length);
      await this.#copy(range, buffer);
    } finally {
      volume.unlock(range);
    }
  }

  async #copy(range: Range, buffer: Memory) {
    const { link, volume, digest, checks } = this.options;
    this.#inFlight.add(range);
    try {
      await this.#run("read the source", OPERATION.read, volume.active, range, buffer);
      const bytes = buffer.bytes.subarray(0, range.length);
      const code = isZero(bytes) ? OPERATION.writeZeroes : OPERATION.write;
      const sent = digest(bytes);
      await this.#run("write to the target", code, link.target, range, buffer);
      this.copiedBytes += range.length;
      this.#inFlight.delete(range);
      await checks.add({ ...range, digest: sent });
    } catch (error) {
      if (this.#inFlight.delete(range)) {
        link.setCheck(range, CHECK.none);
        link.map.markDirty(range.at, range.length);
      }
      throw error;
    }
  }

  async #run(
    doing: string,
    code: number,
    backend: Volume["active"],
    range: Range,
    buffer: Memory,
  ): Promise<void> {
    const errno = await this.options.calls.run(backend, code, {
      ...range,
      address: buffer.address,
    });
    if (errno !== 0) throw failed(doing, errno);
  }
}

function failed(doing: string, errno: number): PsmaError {
  return new PsmaError("io/copy", `Cannot ${doing}: ${errnoText(errno)}`);
}
