/**
 * The pass over what is doubtful, before a round copies anything: digests of both sides are compared chunk by
 * chunk in batches, and only what differs is left for the copier. A chunk in which somebody writes stays as it
 * is, and is copied.
 */
import type { Comparison } from "./comparison.ts";
import type { MirrorLink } from "../volume/mod.ts";

/** Of one question; 16 MiB are read on each side. */
const BATCH_CHUNKS = 256;
/** Of which it is asked at a time which are holes on both sides. */
const WINDOW_CHUNKS = 16_384;

export interface DoubtsOptions {
  readonly link: MirrorLink;
  readonly comparison: Comparison;
  /** Resolves when so many bytes may be read without slowing the application. */
  readonly admit: (bytes: number) => Promise<void>;
}

export class Doubts {
  /** Bytes of doubtful chunks that have a verdict, holes among them, and of those that were equal. */
  comparedBytes = 0;
  equalBytes = 0;

  constructor(readonly options: DoubtsOptions) {}

  /** One pass. @returns whether it came to its end. @throws {PsmaError} when a side does not answer: the rest stays doubtful. */
  async resolve(mayGoOn: () => boolean): Promise<boolean> {
    const { link: { map }, comparison } = this.options;
    let window = this.#next(0, WINDOW_CHUNKS);
    while (window.length > 0 && mayGoOn()) {
      this.#count(await comparison.doubtfulHoles(window));
      const left = window.filter((chunk) => map.isDoubtful(chunk));
      for (let at = 0; at < left.length && mayGoOn(); at += BATCH_CHUNKS) {
        const batch = left.slice(at, at + BATCH_CHUNKS);
        await this.options.admit(batch.length * map.chunkBytes);
        this.#count(await comparison.compareDoubtful(batch));
      }
      window = this.#next((window.at(-1) as number) + 1, WINDOW_CHUNKS);
    }
    return mayGoOn();
  }

  #next(from: number, most: number): number[] {
    const { map } = this.options.link, chunks: number[] = [];
    for (let at = map.nextDoubtful(from); at >= 0 && chunks.length < most;) {
      chunks.push(at);
      at = map.nextDoubtful(at + 1);
    }
    return chunks;
  }

  #count({ equal, unequal }: { equal: number; unequal: number }) {
    const { chunkBytes } = this.options.link.map;
    this.comparedBytes += (equal + unequal) * chunkBytes;
    this.equalBytes += equal * chunkBytes;
  }
}
