/**
 * Comparing both sides of a mirror by digests while the application writes: chunk by chunk, without stopping
 * anybody. One batch at a time, whoever asks.
 *
 * Comparable is a chunk that is not dirty, in which no write is in flight, and which nobody copies or checks.
 * While its digests are on their way it is _watched_: the copier leaves it alone, and a write makes the answer
 * say nothing (in write-through it taints the chunk, while tracking it makes it dirty). So digests that differ of
 * a chunk that was watched to the end mean that the sides differ. They are taken once more after a flush of the
 * target, so that a target that has just lost what it had not flushed is not blamed for it.
 */
import { Breaker, PsmaError, type Turns } from "../core/mod.ts";
import { CHECK, type MirrorLink, type Range, type Volume } from "../volume/mod.ts";

const LANES = 4;

/**
 * - equal: both sides hold the same bytes
 * - behind: the target is known to lack what the source has
 * - busy: a write or a copy was under way: nothing can be said
 * - unequal: they differ, and should not
 * - recorded: there was nothing to compare with yet; there is now
 */
export type Verdict = "equal" | "behind" | "busy" | "unequal" | "recorded";

/** How many doubtful chunks were found to be what. */
export interface Resolved {
  readonly equal: number;
  readonly unequal: number;
}

export interface ComparisonOptions {
  readonly volume: Volume;
  readonly link: MirrorLink;
  readonly turns: Turns;
  /** Digests of what the target persisted, one per extent, in order. */
  readonly ask: (extents: readonly Range[]) => Promise<readonly string[]>;
  /** The digest of the source's bytes as they are now. */
  readonly digestSource: (range: Range) => Promise<string>;
  readonly flushTarget: () => Promise<void>;
  /** How much may be read at once. A write in it spoils the answer about all of it. */
  readonly stepBytes: () => number;
  /** Rejects after the write-through time limit. */
  readonly limit: <T>(work: Promise<T>) => Promise<T>;
  /** So many digests of the target were compared. */
  readonly onCompared: (count: number) => void;
}

export class Comparison {
  #last: Promise<unknown> = Promise.resolve();
  readonly #reading = new Set<Promise<unknown>>();
  readonly #patience: Breaker;

  constructor(readonly options: ComparisonOptions) {
    this.#patience = new Breaker(options.turns);
  }

  /** Waits for no store any more: what is under way fails now, and what comes, at once. */
  abandon(): void {
    this.#patience.break(new PsmaError("state/ended", "Cannot compare: the mirror has ended"));
  }

  /** Resolves when nothing is being compared and no buffer is being read into. */
  async settle(): Promise<void> {
    await this.#last;
    await Promise.allSettled(this.#reading);
  }

  /**
   * Compares chunks without holding anybody up. @param chunks ascending.
   * @returns a verdict for each. @throws {PsmaError} when a side does not answer; then nothing is known.
   */
  compare(chunks: readonly number[]): Promise<Map<number, Verdict>> {
    return this.#alone(() => this.#compare(chunks));
  }

  /**
   * Compares one chunk while new writes to it wait, for at most the write-through time limit: for those that
   * are written all the time. @throws {PsmaError} timeout/check, and as `compare` does.
   */
  compareLocked(chunk: number): Promise<Verdict> {
    return this.#alone(async () => {
      const { volume } = this.options, range = this.rangeOf(chunk);
      try {
        await volume.lock(range);
        return await this.#confirmed(chunk, (work) => this.options.limit(work));
      } finally {
        volume.unlock(range);
      }
    });
  }

  /** Those of the chunks that both sides say to be holes: nothing has to be read to know them equal. */
  holes(chunks: readonly number[]): Promise<Set<number>> {
    return this.#alone(async () => {
      const { link } = this.options;
      const watched = chunks.filter((chunk) => this.#watch(chunk) === undefined);
      if (watched.length === 0) return new Set<number>();
      try {
        const data = await this.#dataIn(watched);
        const found = watched.filter((chunk) =>
          !data.has(chunk) && this.#stirred(chunk) === undefined
        );
        for (const chunk of found) link.setVerified(this.rangeOf(chunk));
        return new Set(found);
      } finally {
        this.#release(watched);
      }
    });
  }

  /**
   * Digests of both sides of doubtful chunks: equal ones are clean once the target has flushed, others are
   * dirty without a doubt. Of those in which somebody writes nothing is said, and of none when the target may
   * have lost something meanwhile: it may have answered before. @returns how many of each.
   * @throws {PsmaError} when a side does not answer; then all stay as they were.
   */
  compareDoubtful(chunks: readonly number[]): Promise<Resolved> {
    return this.#alone(() =>
      this.#whileDoubtful(chunks, async (watched) => {
        const { losses } = this.options.link;
        const equal = await this.#digestsEqual(watched.map((chunk) => this.rangeOf(chunk)));
        return this.#resolve(watched, losses, (_, index) => equal[index] === true);
      })
    );
  }

  /** The same of those that both sides say to be holes; the others stay doubtful. */
  doubtfulHoles(chunks: readonly number[]): Promise<Resolved> {
    return this.#alone(() =>
      this.#whileDoubtful(chunks, async (watched) => {
        const { losses } = this.options.link;
        const data = await this.#dataIn(watched);
        const holes = watched.filter((chunk) => !data.has(chunk));
        return this.#resolve(holes, losses, () => true);
      })
    );
  }

  async #whileDoubtful(
    chunks: readonly number[],
    work: (watched: readonly number[]) => Promise<Resolved>,
  ): Promise<Resolved> {
    // The verdicts will change their bits. While they are watched nothing there becomes cold again.
    await this.options.link.log?.prepare(chunks.map((chunk) => this.rangeOf(chunk)));
    const watched = chunks.filter((chunk) => this.#watchDoubtful(chunk));
    try {
      return watched.length === 0 ? { equal: 0, unequal: 0 } : await work(watched);
    } finally {
      this.#release(watched);
    }
  }

  #watchDoubtful(chunk: number): boolean {
    const { link, volume } = this.options, range = this.rangeOf(chunk);
    if (!link.map.isDoubtful(chunk) || volume.hasWriteIn(range)) return false;
    if (link.checkOf(chunk) !== CHECK.none || link.log?.admits(range.at, range.length) === false) {
      return false;
    }
    link.setCheck(range, CHECK.pending);
    return true;
  }

  /**
   * Here and now, while they are watched: a write between the verdict and the mark would be lost.
   * @param losses of the target's, when it was asked.
   */
  #resolve(
    watched: readonly number[],
    losses: number,
    isEqual: (chunk: number, index: number) => boolean,
  ): Resolved {
    const { link } = this.options;
    let equal = 0, unequal = 0;
    if (link.losses !== losses) return { equal, unequal };
    for (const [index, chunk] of watched.entries()) {
      const { at, length } = this.rangeOf(chunk);
      // A write ends the doubt, or goes to both sides and taints the chunk.
      if (!link.map.isDoubtful(chunk) || link.checkOf(chunk) === CHECK.tainted) continue;
      if (isEqual(chunk, index)) {
        link.map.markEqual(at, length);
        link.setVerified({ at, length });
        equal++;
      } else {
        link.map.markDirty(at, length);
        unequal++;
      }
    }
    return { equal, unequal };
  }

  /** Of the volume as large as it is now; its map may be made for more. */
  get chunks(): number {
    const { volume, link: { map: { chunkBytes } } } = this.options;
    return Math.ceil(volume.sizeBytes / chunkBytes);
  }

  rangeOf(chunk: number): Range {
    const { volume, link: { map: { chunkBytes } } } = this.options;
    const at = chunk * chunkBytes;
    return { at, length: Math.min(chunkBytes, volume.sizeBytes - at) };
  }

  /** Chunks in which a side may hold data, from the first to the last given. @param chunks not empty. */
  async #dataIn(chunks: readonly number[]): Promise<Set<number>> {
    const { volume, link } = this.options, { at, length } = this.#extentOf(chunks);
    const [source, target] = await this.#patience.guard(
      Promise.all([volume.dataExtents(at, length), link.target.dataExtents(at, length)]),
    );
    const data = new Set<number>();
    for (const extent of [...source, ...target]) {
      const covered = link.chunksOf(extent);
      for (let chunk = covered.first; chunk <= covered.last; chunk++) data.add(chunk);
    }
    return data;
  }

  async #compare(chunks: readonly number[]): Promise<Map<number, Verdict>> {
    const verdicts = new Map<number, Verdict>(), again: number[] = [], watched: number[] = [];
    for (const chunk of chunks) {
      const verdict = this.#watch(chunk);
      if (verdict === undefined) watched.push(chunk);
      else verdicts.set(chunk, verdict);
    }
    try {
      const { stepBytes, link: { map } } = this.options;
      const runs = runsOf(watched, Math.max(1, Math.floor(stepBytes() / map.chunkBytes)));
      const equal = await this.#digestsEqual(runs.map((run) => this.#extentOf(run)));
      for (const [index, run] of runs.entries()) {
        // One chunk's write makes the whole extent's digests say nothing.
        const sound = equal[index] === true &&
          run.every((chunk) => this.#stirred(chunk) === undefined);
        for (const chunk of run) {
          const verdict = sound ? this.#equal(chunk) : this.#stirred(chunk);
          if (verdict === undefined) again.push(chunk);
          else verdicts.set(chunk, verdict);
        }
      }
    } finally {
      this.#release(watched);
    }
    for (const chunk of again) verdicts.set(chunk, await this.#confirmed(chunk));
    return verdicts;
  }

  /** What differs must differ twice, the second time after a flush. */
  async #confirmed(chunk: number, bound = <T>(work: Promise<T>) => work): Promise<Verdict> {
    const verdict = await this.#single(chunk, bound);
    if (verdict !== "unequal") return verdict;
    await bound(this.options.flushTarget());
    return await this.#single(chunk, bound);
  }

  async #single(chunk: number, bound: <T>(work: Promise<T>) => Promise<T>): Promise<Verdict> {
    const unfit = this.#watch(chunk);
    if (unfit !== undefined) return unfit;
    try {
      const [equal] = await bound(this.#digestsEqual([this.rangeOf(chunk)]));
      return this.#stirred(chunk) ?? (equal ? this.#equal(chunk) : "unequal");
    } finally {
      this.#release([chunk]);
    }
  }

  #equal(chunk: number): Verdict {
    this.options.link.setVerified(this.rangeOf(chunk));
    return "equal";
  }

  async #digestsEqual(extents: readonly Range[]): Promise<boolean[]> {
    if (extents.length === 0) return [];
    const { ask, onCompared } = this.options;
    const reading = this.#digestSource(extents);
    this.#reading.add(reading);
    const forget = () => void this.#reading.delete(reading);
    reading.then(forget, forget);
    const [source, target] = await this.#patience.guard(Promise.all([reading, ask(extents)]));
    onCompared(extents.length);
    return source.map((digest, index) => digest === target[index]);
  }

  async #digestSource(extents: readonly Range[]): Promise<string[]> {
    const digests = new Array<string>(extents.length);
    let next = 0;
    const lanes = Array.from({ length: Math.min(LANES, extents.length) }, async () => {
      while (next < extents.length) {
        const index = next++;
        digests[index] = await this.options.digestSource(extents[index] as Range);
      }
    });
    // All of them end before a failure is told: none may use its buffer any more.
    for (const outcome of await Promise.allSettled(lanes)) {
      if (outcome.status === "rejected") throw outcome.reason;
    }
    return digests;
  }

  /** Begins to watch a chunk. @returns why it cannot be compared now; it is not watched then. */
  #watch(chunk: number): Verdict | undefined {
    const { link, volume } = this.options, range = this.rangeOf(chunk);
    if (link.map.isDirty(chunk)) return "behind";
    if (link.checkOf(chunk) !== CHECK.none || volume.hasWriteIn(range)) return "busy";
    link.setCheck(range, CHECK.pending);
    return undefined;
  }

  /** What came over a watched chunk; undefined: nothing, so its digests are of the same moment. */
  #stirred(chunk: number): Verdict | undefined {
    const { link } = this.options;
    if (link.map.isDirty(chunk)) return "behind";
    return link.checkOf(chunk) === CHECK.tainted ? "busy" : undefined;
  }

  #release(chunks: readonly number[]) {
    const { link } = this.options;
    for (const chunk of chunks) link.setCheck(this.rangeOf(chunk), CHECK.none);
  }

  #extentOf(run: readonly number[]): Range {
    const first = this.rangeOf(run[0] as number), last = this.rangeOf(run.at(-1) as number);
    return { at: first.at, length: last.at + last.length - first.at };
  }

  #alone<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#last.then(work);
    this.#last = turn.catch(() => {});
    return turn;
  }
}

/** Adjacent numbers together, so many at most. Pure. */
export function runsOf(numbers: readonly number[], longest: number): number[][] {
  const runs: number[][] = [];
  for (const number of numbers) {
    const run = runs.at(-1);
    if (run !== undefined && run.length < longest && run.at(-1) === number - 1) run.push(number);
    else runs.push([number]);
  }
  return runs;
}
