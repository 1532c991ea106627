/**
 * The gate before each switch: what was written through since it was last checked is compared too.
 *
 * What it promises: when it has passed, each chunk was found equal on both sides after the last write that had
 * ended before its last pass began; only chunks that were written again during that pass, or later, are left.
 * Those are counted (`unverified_bytes`), never hidden. A chunk that differs becomes dirty, and the mirror is not
 * ready before it is copied and checked again.
 */
import type { Clock } from "../core/mod.ts";
import type { MirrorLink } from "../volume/mod.ts";
import type { Comparison } from "./comparison.ts";

const PASSES_MAX = 4;
const WINDOW_CHUNKS = 1024;
/**
 * A batch keeps the store's thread from the writes that wait for it: short ones then, one by one. And a pass that
 * is slower than their writer leaves as much as it found, so it does not go by how the application fares.
 */
const BATCH_CHUNKS = 32, BATCH_CHUNKS_WAITED_FOR = 2;
const NEEDED_BYTES_PER_S = 160 * 2 ** 20;

export interface VerifyGateOptions {
  readonly link: MirrorLink;
  readonly comparison: Comparison;
  readonly clock: Clock;
  /** Resolves when `bytes` more may be read. */
  readonly admit: (bytes: number) => Promise<void>;
  /** Whether the application works. */
  readonly isBusy: () => boolean;
  readonly onUnequal: (chunk: number) => void;
}

export class VerifyGate {
  #passedFromMs = -Infinity;
  #isPassing = false;

  constructor(readonly options: VerifyGateOptions) {}

  /** Whether passes that began at `ms` (monotonic) or later came to their end. */
  passedSince(ms: number): boolean {
    return this.#passedFromMs >= ms;
  }

  /**
   * Passes over what is unverified, until nothing is left, or a pass does not halve it because a writer
   * makes new work as fast. @param goOn false ends it early: then it has not passed.
   * @throws {PsmaError} when a side does not answer.
   */
  async pass(goOn: () => boolean): Promise<void> {
    const { clock } = this.options;
    const begunMs = clock.monotonicMs();
    this.#isPassing = true;
    try {
      await this.#passes(goOn);
    } finally {
      this.#isPassing = false;
    }
    if (goOn()) this.#passedFromMs = begunMs;
  }

  /** How fast chunks are to be compared now at least; 0 while it is not passing, or no write waits for the target. */
  get neededBytesPerSecond(): number {
    return this.#isPassing && this.#isWaitedFor ? NEEDED_BYTES_PER_S : 0;
  }

  get #isWaitedFor(): boolean {
    const { link } = this.options;
    return link.writeThrough && !link.follows;
  }

  async #passes(goOn: () => boolean): Promise<void> {
    const { unverified } = this.options.link;
    for (let pass = 0; pass < PASSES_MAX && unverified.count > 0; pass++) {
      const before = unverified.count;
      if (!await this.#once(goOn)) return;
      if (unverified.count > before / 2) break;
    }
  }

  async #once(goOn: () => boolean): Promise<boolean> {
    const { link: { unverified }, comparison } = this.options;
    let window: number[] = [];
    for (let chunk = unverified.next(0); chunk >= 0; chunk = unverified.next(chunk + 1)) {
      if (chunk >= comparison.chunks) {
        unverified.clear(chunk); // Where the volume has nothing, there is nothing to compare.
        continue;
      }
      const first = window[0];
      if (first !== undefined && chunk >= first + WINDOW_CHUNKS) {
        if (!await this.#compare(window, goOn)) return false;
        window = [];
      }
      window.push(chunk);
    }
    return await this.#compare(window, goOn);
  }

  async #compare(window: readonly number[], goOn: () => boolean): Promise<boolean> {
    const { comparison, link, admit, isBusy, onUnequal } = this.options;
    // Asking where holes are costs the store as much as reading, and what was just written is none: it is worth
    // it where everything is unverified, as after a restart.
    const holes = window.length < WINDOW_CHUNKS
      ? new Set<number>()
      : await comparison.holes(window);
    const data = window.filter((chunk) => !holes.has(chunk));
    for (let at = 0, most = 0; at < data.length; at += most) {
      most = this.#isWaitedFor && isBusy() ? BATCH_CHUNKS_WAITED_FOR : BATCH_CHUNKS;
      const batch = data.slice(at, at + most);
      await admit(batch.length * link.map.chunkBytes);
      if (!goOn()) return false;
      for (const [chunk, verdict] of await comparison.compare(batch)) {
        if (verdict === "unequal") onUnequal(chunk);
      }
    }
    return goOn();
  }
}
