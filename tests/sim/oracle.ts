/**
 * Knows what every block of the volume may hold, from what was asked and acknowledged.
 *
 * A block's history is the list of writes to it that a reader may still meet, now or after a power loss. One
 * write is older than another when it was acknowledged before the other was begun. A reader may not meet a
 * write when a surely done one that is newer was acknowledged before the read began. A write leaves the
 * history when a newer one is durable: acknowledged before a flush began that was acknowledged, or by FUA.
 * A read that meets nothing in flight settles which of several possible writes is the block's.
 */
import { SECTOR_BYTES } from "./disk.ts";

/** A broken promise. */
export class Violation extends Error {
  override readonly name = "Violation";
}

const WORDS = SECTOR_BYTES / 4;
const BLOCK_MARK = 0x5bd1e995;

interface Entry {
  readonly version: number;
  begun: number;
  acknowledged: number;
  /** It is known to have happened. */
  sure: boolean;
  /** It was under way when the power went: its answer may be older than the loss. */
  wasUnderWay?: boolean;
}

/** A write under way. */
export interface Writing {
  readonly at: number;
  readonly length: number;
  readonly version: number;
  readonly entries: readonly Entry[];
}

export class Oracle {
  /** Blocks that were compared. */
  checked = 0;
  #seq = 1;
  #version = 1;
  readonly #blocks: Entry[][];
  readonly #writing = new Set<Writing>();
  readonly #reading = new Set<number>();
  /** Blocks that the active store may have lost under a living agent: its mirror may still have them. */
  readonly #loose = new Set<number>();

  /** @param isFilled whether a block holds version 1 at first, or zeros. */
  constructor(sizeBytes: number, isFilled: (block: number) => boolean) {
    const entry = (block: number): Entry => ({
      version: isFilled(block) ? 1 : 0,
      begun: 0,
      acknowledged: 0,
      sure: true,
    });
    const blocks = sizeBytes / SECTOR_BYTES;
    this.#blocks = Array.from({ length: blocks }, (_, block) => [entry(block)]);
  }

  get sizeBytes(): number {
    return this.#blocks.length * SECTOR_BYTES;
  }

  /** The volume has grown: what is new reads as zeros. */
  grow(sizeBytes: number): void {
    while (this.#blocks.length < sizeBytes / SECTOR_BYTES) {
      const seq = this.#seq++;
      this.#blocks.push([{ version: 0, begun: seq, acknowledged: seq, sure: true }]);
    }
  }

  /** A write is asked for. @param isZero it zeroes. */
  begin(at: number, length: number, isZero: boolean): Writing {
    const version = isZero ? 0 : ++this.#version, begun = this.#seq++;
    const entries: Entry[] = [];
    for (let block = at / SECTOR_BYTES; block < (at + length) / SECTOR_BYTES; block++) {
      const entry: Entry = { version, begun, acknowledged: Infinity, sure: false };
      this.#history(block).push(entry);
      entries.push(entry);
    }
    const writing: Writing = { at, length, version, entries };
    this.#writing.add(writing);
    return writing;
  }

  /** @param isDurable it was asked for with FUA. */
  acknowledge(writing: Writing, isDurable: boolean): void {
    this.#end(writing, true, isDurable);
    if (!isDurable) return;
    const first = writing.at / SECTOR_BYTES;
    const newest = this.#oldestRead();
    for (const [i, entry] of writing.entries.entries()) {
      if (entry.acknowledged < newest) this.#forgetBefore(first + i, entry);
    }
  }

  /** It was answered with an error: it may have happened, in part. @param onOneSide and on one side only. */
  fail(writing: Writing, onOneSide: boolean): void {
    this.#end(writing, false);
    if (!onOneSide) return;
    const first = writing.at / SECTOR_BYTES;
    for (let i = 0; i < writing.entries.length; i++) this.#loose.add(first + i);
  }

  #end(writing: Writing, happened: boolean, isDurable = false) {
    if (!this.#writing.delete(writing)) return;
    const acknowledged = this.#seq++;
    for (const [i, entry] of writing.entries.entries()) {
      entry.acknowledged = acknowledged;
      entry.sure = happened && (isDurable || entry.wasUnderWay !== true);
      if (entry.sure) this.#loose.delete(writing.at / SECTOR_BYTES + i);
    }
  }

  beginFlush(): number {
    return this.#seq++;
  }

  /** A flush is acknowledged that began then. */
  flushed(begun: number): void {
    const before = Math.min(begun, this.#oldestRead());
    for (let block = 0; block < this.#blocks.length; block++) {
      const history = this.#history(block);
      if (history.length === 1) continue;
      for (const entry of [...history]) {
        if (entry.sure && entry.acknowledged < before) this.#forgetBefore(block, entry);
      }
    }
  }

  #oldestRead(): number {
    let oldest = Infinity;
    for (const begun of this.#reading) oldest = Math.min(oldest, begun);
    return oldest;
  }

  #forgetBefore(block: number, newer: Entry) {
    const history = this.#history(block);
    if (history.length === 1) return;
    this.#blocks[block] = history.filter((entry) =>
      entry === newer || entry.acknowledged >= newer.begun
    );
  }

  /** The agent's process is gone: what was under way has happened or not. */
  processLoss(): void {
    for (const writing of [...this.#writing]) this.#end(writing, false);
    this.#reading.clear();
  }

  /** What was not flushed may be gone. @param agentLives and has gone on, without being told. */
  powerLoss(agentLives: boolean): void {
    for (const [block, history] of this.#blocks.entries()) {
      if (history.length === 1) continue;
      for (const entry of history) {
        entry.sure = false;
        if (entry.acknowledged === Infinity) entry.wasUnderWay = true;
      }
      if (agentLives) this.#loose.add(block);
    }
  }

  /** Nobody can say which of several writes it holds, and two places may hold different ones. */
  isLoose(block: number): boolean {
    return this.#loose.has(block);
  }

  beginRead(): number {
    const begun = this.#seq++;
    this.#reading.add(begun);
    return begun;
  }

  endRead(begun: number): void {
    this.#reading.delete(begun);
  }

  /**
   * Compares what a read that began then has brought. @param isRead a reader has seen it: it stays so.
   * @throws {Violation} naming the first block that holds what it must not
   */
  check(
    who: string,
    at: number,
    bytes: Uint8Array<ArrayBuffer>,
    begun = this.#seq,
    isRead = true,
  ): void {
    const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
    for (let i = 0; i < bytes.length / SECTOR_BYTES; i++) {
      const block = at / SECTOR_BYTES + i;
      const version = versionOf(words, i * WORDS, block);
      const history = this.#history(block);
      this.checked++;
      const met = history.findLast((entry) =>
        entry.version === version && isPossible(entry, history, begun)
      );
      if (!met) {
        throw this.#violation(
          who,
          block,
          whatHolds(bytes.subarray(i * SECTOR_BYTES, (i + 1) * SECTOR_BYTES)),
        );
      }
      if (isRead && history.length > 1 && !this.isLoose(block)) this.#settle(history, met, begun);
    }
  }

  /** Nothing was under way since the read began: what it met is the block's from here on. */
  #settle(history: Entry[], met: Entry, begun: number) {
    if (history.some((entry) => entry.acknowledged >= begun)) return;
    met.begun = met.acknowledged = this.#seq++;
    met.sure = true;
  }

  /** For messages: each write with when it was begun and acknowledged; `?` where it is not sure. */
  historyOf(block: number): string {
    return this.#history(block).map((entry) =>
      `v${entry.version} [${entry.begun}, ${entry.acknowledged}]${entry.sure ? "" : "?"}`
    ).join(", ");
  }

  #violation(who: string, block: number, found: string): Violation {
    return new Violation(
      `${who}: block ${block} (byte ${block * SECTOR_BYTES}) holds ${found}; ` +
        `possible: ${this.historyOf(block)}`,
    );
  }

  /** What a block may hold after a power loss at this moment. */
  survives(block: number, bytes: Uint8Array): boolean {
    const words = new Uint32Array(bytes.buffer, bytes.byteOffset, WORDS);
    const version = versionOf(words, 0, block);
    return this.#history(block).some((entry) => entry.version === version);
  }

  /** True when a write to the block is under way. */
  isBeingWritten(block: number): boolean {
    return this.#history(block).some((entry) => entry.acknowledged === Infinity);
  }

  #history(block: number): Entry[] {
    const history = this.#blocks[block];
    if (!history) throw new Violation(`block ${block} lies outside the volume`);
    return history;
  }
}

function isPossible(entry: Entry, history: readonly Entry[], begun: number): boolean {
  for (const other of history) {
    if (!other.sure || other.acknowledged >= begun) continue;
    if (entry.acknowledged < other.begun) return false;
  }
  return true;
}

/** Fills blocks with a version. @param at of the first block, in bytes. */
export function fillBlocks(bytes: Uint8Array, at: number, version: number): void {
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
  for (let i = 0; i < words.length; i += 2) {
    words[i] = version;
    words[i + 1] = ((at / SECTOR_BYTES + Math.floor(i / WORDS)) ^ BLOCK_MARK) >>> 0;
  }
}

/** What a block's bytes look like: the writes that they come from, and where those belong. */
export function whatHolds(bytes: Uint8Array<ArrayBuffer>): string {
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, WORDS);
  const parts = new Set<string>();
  for (let i = 0; i < WORDS; i += 2) {
    const version = words[i] as number, mark = words[i + 1] as number;
    parts.add(
      version === 0 && mark === 0 ? "zeros" : `v${version} of block ${(mark ^ BLOCK_MARK) >>> 0}`,
    );
  }
  return [...parts].join(" and ");
}

/** @returns the version that a block holds whole, 0 for zeros, -1 for anything else. */
function versionOf(words: Uint32Array, from: number, block: number): number {
  const version = words[from] as number;
  const mark = version === 0 ? 0 : (block ^ BLOCK_MARK) >>> 0;
  for (let i = from; i < from + WORDS; i += 2) {
    if (words[i] !== version || words[i + 1] !== mark) return -1;
  }
  return version;
}
