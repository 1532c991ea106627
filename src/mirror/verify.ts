/**
 * A verify: one pass over a whole volume that compares both sides of its mirror while the application writes,
 * at a rate, and goes on after a restart where it was.
 *
 * Chunks that are written at the moment are tried again at the end, and then once more with new writes held
 * back for at most the write-through time limit. Dirty chunks are known to differ and count as behind. What
 * differs and should not becomes dirty, so that the mirror repairs it from the source: which of two sides is
 * the rotten one a mirror cannot know.
 *
 * Not promised: bytes that both sides have in memory are compared there; a disk's own rot is seen once it is read.
 */
import { type Clock, PsmaError, Signal, toPsmaError, type Turns } from "../core/mod.ts";
import type { DifferingRange, VerifyRecord } from "../volume/mod.ts";
import type { Verdict } from "./comparison.ts";

const WINDOW_CHUNKS = 1024, BATCH_CHUNKS = 32;
const LATER_MAX = 1024;
const MISMATCHES_MAX = 256;
/** Events of single ranges; the end of the verify tells the sums. */
const TOLD_MAX = 32;
const SAVE_EVERY_MS = 5000;
const IDLE_MS = 100;
const RETRY_FIRST_MS = 100, RETRY_MAX_MS = 5000;

/** The two sides, as a verify sees them; chunk numbers ascending. */
export interface VerifiedSides {
  readonly chunkBytes: number;
  compare(chunks: readonly number[]): Promise<Map<number, Verdict>>;
  compareLocked(chunk: number): Promise<Verdict>;
  holes(chunks: readonly number[]): Promise<Set<number>>;
  rangeOf(chunk: number): DifferingRange;
}

export interface VerifyOptions {
  readonly record: VerifyRecord;
  readonly sides: VerifiedSides;
  readonly turns: Turns;
  readonly clock: Clock;
  /** Why nothing can be compared now; undefined when it can. */
  readonly waitsFor: () => string | undefined;
  /** Resolves when `bytes` more may be read without slowing the application. */
  readonly admit: (bytes: number) => Promise<void>;
  /** Makes the record durable. */
  readonly save: (record: VerifyRecord) => Promise<void>;
  /** The range differs. Told at once, once. */
  readonly onMismatch: (range: DifferingRange, tell: boolean) => void;
  readonly onEnd: (record: VerifyRecord) => void;
}

export class Verify {
  readonly #options: VerifyOptions;
  readonly #chunkOf: (bytes: number) => number;
  #record: VerifyRecord;
  #reason: string | undefined;
  #halted = false;
  readonly #wake: Signal;
  #savedMs: number;
  #dueMs = 0;
  #startedMs: number;
  readonly #doneAtStart: number;
  #finished: Promise<void> = Promise.resolve();

  constructor(options: VerifyOptions) {
    this.#options = options;
    this.#record = options.record;
    this.#chunkOf = (bytes) => Math.ceil(bytes / options.sides.chunkBytes);
    this.#wake = new Signal(options.turns);
    this.#savedMs = this.#startedMs = options.clock.monotonicMs();
    this.#doneAtStart = options.record.done_bytes;
  }

  get record(): VerifyRecord {
    return this.#record;
  }

  /** What it waits for; undefined while it compares, and when it has ended. */
  get reason(): string | undefined {
    return this.#record.state === "running" ? this.#reason : undefined;
  }

  get rateBytesPerSecond(): number {
    const seconds = (this.#options.clock.monotonicMs() - this.#startedMs) / 1000;
    if (this.#record.state !== "running" || seconds <= 0) return 0;
    return Math.round((this.#record.done_bytes - this.#doneAtStart) / seconds);
  }

  /** Runs until it is done, stopped or halted. Never throws: what fails is tried again. */
  start(): void {
    this.#finished = this.#run();
  }

  /** Ends it for now; `record` says where it was. */
  async stop(): Promise<void> {
    await this.halt();
    if (this.#record.state !== "running") return;
    await this.#end("stopped");
  }

  /** Ends the work in this process; on disk it is still running, so that the next one goes on. */
  async halt(): Promise<void> {
    this.#halted = true;
    this.#wake.tell();
    await this.#finished;
  }

  async #run() {
    let retryMs = RETRY_FIRST_MS;
    while (!this.#halted && this.#record.state === "running") {
      try {
        this.#reason = this.#options.waitsFor();
        if (this.#reason !== undefined) await this.#sleep(IDLE_MS);
        else if (this.#record.done_bytes < this.#record.total_bytes) await this.#window();
        else if (this.#record.later.length > 0) await this.#tryLater();
        else await this.#end("done");
        retryMs = RETRY_FIRST_MS;
      } catch (error) {
        if (this.#halted) return;
        this.#reason = toPsmaError(error).message;
        await this.#sleep(retryMs);
        retryMs = Math.min(retryMs * 2, RETRY_MAX_MS);
      }
    }
  }

  async #window() {
    const { sides } = this.#options;
    const first = this.#chunkOf(this.#record.done_bytes);
    const end = Math.min(first + WINDOW_CHUNKS, this.#chunkOf(this.#record.total_bytes));
    const chunks = Array.from({ length: end - first }, (_, index) => first + index);
    const holes = await sides.holes(chunks);
    for (let at = 0; at < chunks.length && this.#mayGoOn();) {
      const batch: number[] = [];
      // Chunks up to here are done with this batch: holes between them cost nothing.
      while (at < chunks.length && batch.length < BATCH_CHUNKS) {
        const chunk = chunks[at++] as number;
        if (!holes.has(chunk)) batch.push(chunk);
      }
      const verdicts = batch.length > 0 ? await this.#compare(batch) : new Map<number, Verdict>();
      if (verdicts === undefined) return;
      const from = this.#chunkOf(this.#record.done_bytes);
      for (const chunk of chunks.slice(from - first, at)) {
        this.#count(chunk, verdicts.get(chunk) ?? "equal");
      }
      await this.#saveNowAndThen();
    }
  }

  #mayGoOn(): boolean {
    return !this.#halted && this.#options.waitsFor() === undefined;
  }

  /** @returns undefined when it was halted before it could. */
  async #compare(batch: readonly number[]): Promise<Map<number, Verdict> | undefined> {
    const bytes = batch.length * this.#options.sides.chunkBytes;
    await this.#keepRate(bytes);
    if (!this.#halted) await this.#wake.or(this.#options.admit(bytes));
    if (!this.#mayGoOn()) return undefined;
    return await this.#options.sides.compare(batch);
  }

  /** The next chunk in order has its verdict. */
  #count(chunk: number, verdict: Verdict) {
    const { at, length } = this.#options.sides.rangeOf(chunk);
    const done_bytes = Math.min(at + length, this.#record.total_bytes);
    this.#record = { ...this.#record, done_bytes };
    this.#judge(chunk, verdict, this.#record.later.length < LATER_MAX);
  }

  /** @param again a chunk that is busy is tried again at the end. */
  #judge(chunk: number, verdict: Verdict, again: boolean) {
    const record = this.#record, range = this.#options.sides.rangeOf(chunk);
    if (verdict === "unequal") this.#mismatch(range);
    else if (verdict === "busy" && again) {
      this.#record = { ...record, later: [...record.later, chunk] };
    } else {
      const key = `${verdict}_bytes` as const;
      this.#record = { ...record, [key]: record[key] + range.length };
    }
  }

  #mismatch(range: DifferingRange) {
    const record = this.#record;
    const mismatches = withRange(record.mismatches, range, MISMATCHES_MAX);
    const isNew = mismatches.length > record.mismatches.length;
    const mismatched_bytes = record.mismatched_bytes + range.length;
    this.#record = { ...record, mismatches, mismatched_bytes };
    this.#savedMs = -Infinity;
    this.#options.onMismatch(range, isNew && mismatches.length <= TOLD_MAX);
  }

  /** Chunks that somebody wrote in when it was their turn. */
  async #tryLater() {
    const batch = this.#record.later.slice(0, BATCH_CHUNKS);
    const verdicts = await this.#compare(batch);
    if (verdicts === undefined) return;
    for (const chunk of batch) {
      let verdict = verdicts.get(chunk) ?? "busy";
      if (verdict === "busy") verdict = await this.#compareLocked(chunk);
      if (this.#halted) return;
      this.#record = { ...this.#record, later: this.#record.later.filter((one) => one !== chunk) };
      this.#judge(chunk, verdict, false);
    }
    await this.#saveNowAndThen();
  }

  async #compareLocked(chunk: number): Promise<Verdict> {
    try {
      return await this.#options.sides.compareLocked(chunk);
    } catch (error) {
      // Nobody waits longer for a verify: then there is nothing to say about this chunk.
      if (error instanceof PsmaError && error.code === "timeout/check") return "busy";
      throw error;
    }
  }

  async #keepRate(bytes: number) {
    const rate = this.#record.max_rate_bytes_per_s;
    if (rate === null) return;
    const now = this.#options.clock.monotonicMs();
    if (this.#dueMs > now) await this.#sleep(this.#dueMs - now);
    this.#dueMs = Math.max(this.#dueMs, now) + bytes / rate * 1000;
  }

  async #saveNowAndThen() {
    const now = this.#options.clock.monotonicMs();
    if (now - this.#savedMs < SAVE_EVERY_MS) return;
    this.#savedMs = now;
    await this.#options.save(this.#record);
  }

  async #end(state: "done" | "stopped") {
    const ended_at = new Date(this.#options.clock.nowMs()).toISOString();
    const record: VerifyRecord = { ...this.#record, state, ended_at };
    await this.#options.save(record);
    this.#record = record;
    this.#options.onEnd(record);
  }

  async #sleep(ms: number) {
    if (!this.#halted) await this.#wake.or(this.#options.turns.sleep(ms));
  }
}

/** The ranges with one more, merged and ascending; a new one beyond `most` is left out. Pure. */
export function withRange(
  ranges: readonly DifferingRange[],
  added: DifferingRange,
  most: number,
): DifferingRange[] {
  const merged: DifferingRange[] = [];
  for (const range of [...ranges, added].sort((a, b) => a.at - b.at)) {
    const last = merged.at(-1);
    if (last !== undefined && range.at <= last.at + last.length) {
      const length = Math.max(last.at + last.length, range.at + range.length) - last.at;
      merged[merged.length - 1] = { at: last.at, length };
    } else merged.push({ ...range });
  }
  return merged.length > most ? [...ranges] : merged;
}
