/**
 * What a volume keeps about its mirror while there is one: the target, the change map, whether writes go
 * to both sides, extents that the copier has locked, and writes that wait for them.
 * Hot path where it says so.
 */
import type { Backend } from "../backend/mod.ts";
import type { ChangeMap } from "./change_map.ts";
import type { IntentLog } from "./intent_log.ts";
import type { Range } from "./range.ts";
import { UnverifiedMap } from "./unverified_map.ts";

/**
 * What a chunk's bytes are being checked for: nothing; a digest's answer is on its way; a write went through
 * meanwhile, so that the answer will say nothing. Whoever sets a chunk from `none` to `pending` sets it back;
 * until then nobody else copies or compares it.
 */
export const CHECK = { none: 0, pending: 1, tainted: 2 } as const;

export class MirrorLink {
  /** Writes go to both sides and are acknowledged after both, or as `follows` says. */
  writeThrough = false;
  /**
   * In write-through, while the mirror is not ready yet: writes are acknowledged as soon as the active side has
   * them, and the target follows. Nobody waits for a target that is busy with copies.
   */
  follows = false;
  /** Between the first step of a commit and its outcome: both sides must hold every write; no way back. */
  committing = false;
  /** Of the mirror that leads back once the target is active; see `Sides.prepareReverse`. */
  reverse: MirrorLink | undefined;
  /** Called when write-through ended because the target failed or was too slow. */
  onFallback: ((reason: string) => void) | undefined;
  /** Bytes of chunks that became dirty by the application's writes. */
  changedBytes = 0;
  /** How often the target may have lost something: what it answered before says nothing of what it holds now. */
  losses = 0;
  /** Slots of writes that wait for a locked extent, in order. */
  readonly waiting: number[] = [];
  /** Slots of writes that wait until the log says, durably, that their regions are hot. The target is not to blame. */
  readonly cold: number[] = [];
  readonly #locks: Range[] = [];
  /** CHECK per chunk. */
  readonly #checks: Uint8Array;

  /**
   * @param unverified without it, one that ends with this process.
   * @param log without it nothing is known after a power loss; whoever changes a bit of the map asks it first.
   */
  constructor(
    readonly target: Backend,
    readonly map: ChangeMap,
    readonly unverified: UnverifiedMap = UnverifiedMap.inMemory(map.chunks),
    readonly log?: IntentLog | undefined,
  ) {
    this.#checks = new Uint8Array(map.chunks);
  }

  /** Hot path. */
  isLocked(at: number, length: number): boolean {
    for (let i = 0; i < this.#locks.length; i++) {
      const lock = this.#locks[i] as Range;
      if (at < lock.at + lock.length && lock.at < at + length) return true;
    }
    return false;
  }

  get hasLocks(): boolean {
    return this.#locks.length > 0;
  }

  /** The locks that a write to the range would wait for. */
  locksOn({ at, length }: Range): readonly Range[] {
    return this.#locks.filter((lock) => at < lock.at + lock.length && lock.at < at + length);
  }

  lock(range: Range): void {
    this.#locks.push(range);
  }

  /** Whether a lock is still held: with write-through all of them end. */
  holdsLock(range: Range): boolean {
    return this.#locks.includes(range);
  }

  /** Nobody waits for a target that is left behind; who had a lock has none now. */
  unlockAll(): void {
    this.#locks.length = 0;
  }

  unlock(range: Range): void {
    const index = this.#locks.indexOf(range);
    if (index >= 0) this.#locks.splice(index, 1);
  }

  /** Hot path. A write goes through: these chunks are unverified, and an answer on its way says nothing now. */
  taint(at: number, length: number): void {
    const end = Math.floor((at + length - 1) / this.map.chunkBytes);
    for (let chunk = Math.floor(at / this.map.chunkBytes); chunk <= end; chunk++) {
      if (this.#checks[chunk] === CHECK.pending) this.#checks[chunk] = CHECK.tainted;
      this.unverified.mark(chunk);
    }
  }

  /** The target may have lost what was not flushed: it is copied again. */
  targetLost(): void {
    this.losses++;
    this.map.unstableToDirty();
  }

  setCheck(range: Range, state: number): void {
    const { first, last } = this.chunksOf(range);
    this.#checks.fill(state, first, last + 1);
  }

  /** True when any chunk of the range is in one of the given states. */
  hasCheck(range: Range, state: number): boolean {
    const { first, last } = this.chunksOf(range);
    for (let chunk = first; chunk <= last; chunk++) if (this.#checks[chunk] === state) return true;
    return false;
  }

  /** True when somebody copies or checks any chunk of the range; it may reach beyond the last. */
  isChecked(range: Range): boolean {
    const { first, last } = this.chunksOf(range), end = Math.min(last, this.#checks.length - 1);
    for (let chunk = first; chunk <= end; chunk++) {
      if (this.#checks[chunk] !== CHECK.none) return true;
    }
    return false;
  }

  /** True when the target is known to lack any chunk of the range. */
  lacks(range: Range): boolean {
    const { first, last } = this.chunksOf(range), dirty = this.map.nextDirty(first);
    return dirty >= 0 && dirty <= last;
  }

  checkOf(chunk: number): number {
    return this.#checks[chunk] as number;
  }

  /** Both sides were seen to be equal there, and nobody wrote meanwhile. */
  setVerified(range: Range): void {
    const { first, last } = this.chunksOf(range);
    for (let chunk = first; chunk <= last; chunk++) this.unverified.clear(chunk);
  }

  /** The mirror has ended, and nobody works with its maps any more. */
  async close(): Promise<void> {
    await this.log?.close();
    this.map.close();
    this.unverified.close();
  }

  /** The maps reach as far as the volume may grow: nothing is known to differ beyond its end. */
  forgetBeyond(sizeBytes: number): void {
    const first = Math.ceil(sizeBytes / this.map.chunkBytes);
    this.map.forgetFrom(first);
    for (let chunk = first; chunk < this.map.chunks; chunk++) this.unverified.clear(chunk);
  }

  get unverifiedBytes(): number {
    return this.unverified.count * this.map.chunkBytes;
  }

  chunksOf(range: Range): { first: number; last: number } {
    return {
      first: Math.floor(range.at / this.map.chunkBytes),
      last: Math.floor((range.at + range.length - 1) / this.map.chunkBytes),
    };
  }
}
