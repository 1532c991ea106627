/**
 * Digest checks: every copied extent's digest, taken from the buffer that was sent, is compared with the
 * digest of what the target persisted. Asked in batches, a bounded number at a time.
 *
 * A write that goes through to an extent while its answer is on the way taints the check; such an extent is
 * checked again with new writes to it held back, for at most the write-through time limit.
 */
import { Breaker, PsmaError, type Turns } from "../core/mod.ts";
import { CHECK, type MirrorLink, type Range, type Volume } from "../volume/mod.ts";

const BATCH = 128;
/** While writes go through: the longer an answer is on its way, the more of them taint what it is about. */
const BATCH_WRITTEN_THROUGH = 16;
const MAX_BATCHES = 4;
const MAX_STRIKES = 3;

export interface CopiedExtent extends Range {
  readonly digest: string;
}

export interface CheckOptions {
  readonly volume: Pick<Volume, "lock" | "unlock">;
  readonly link:
    & Pick<
      MirrorLink,
      "writeThrough" | "hasCheck" | "setCheck" | "setVerified" | "holdsLock" | "lacks"
    >
    & {
      readonly map: Pick<MirrorLink["map"], "markDirty">;
    };
  readonly turns: Turns;
  /** Digests of what the target persisted, one per extent, in order. */
  readonly ask: (extents: readonly Range[]) => Promise<readonly string[]>;
  /** The digest of the source's bytes as they are now. */
  readonly digestSource: (range: Range) => Promise<string>;
  /** Rejects after the write-through time limit. */
  readonly limit: <T>(work: Promise<T>) => Promise<T>;
  /** The target persisted other bytes than it was sent. */
  readonly onMismatch: (range: Range, strikes: number) => void;
  /** Both sides differ when both are read again: which of them changed its bytes nobody can tell. */
  readonly onUnequal: (range: Range) => void;
}

export class DigestChecks {
  checked = 0;
  mismatched = 0;
  #collecting: CopiedExtent[] = [];
  readonly #running = new Set<Promise<void>>();
  readonly #unsettled = new Set<CopiedExtent>();
  readonly #strikes = new Map<number, number>();
  #failure: unknown;

  readonly #patience: Breaker;

  constructor(readonly options: CheckOptions) {
    this.#patience = new Breaker(options.turns);
  }

  /** Waits for no store any more: what is under way fails now, and what comes, at once. */
  abandon(): void {
    this.#patience.break(
      new PsmaError("state/ended", "Cannot check an extent: the mirror has ended"),
    );
  }

  /** Extents that were copied and whose digests are not compared yet. */
  unsettled(): Iterable<Range> {
    return this.#unsettled;
  }

  /** Takes over an extent whose chunks are CHECK.pending. Waits while too many batches are under way. */
  async add(extent: CopiedExtent): Promise<void> {
    this.#collecting.push(extent);
    this.#unsettled.add(extent);
    const most = this.options.link.writeThrough ? BATCH_WRITTEN_THROUGH : BATCH;
    if (this.#collecting.length < most) return;
    while (this.#running.size >= MAX_BATCHES) await Promise.race(this.#running);
    this.#start();
  }

  /** Waits until every extent has been checked. @throws what a batch failed with; its extents are dirty again. */
  async settle(): Promise<void> {
    this.#start();
    while (this.#running.size > 0) await Promise.all(this.#running);
    const failure = this.#failure;
    this.#failure = undefined;
    if (failure !== undefined) throw failure;
  }

  #start() {
    const batch = this.#collecting.splice(0);
    if (batch.length === 0) return;
    const running: Promise<void> = this.#check(batch).catch((error) => {
      this.#failure ??= error;
    }).finally(() => this.#running.delete(running));
    this.#running.add(running);
  }

  async #check(batch: readonly CopiedExtent[]) {
    const { link, ask } = this.options;
    const unsettled = new Set(batch);
    const settle = (extent: CopiedExtent) => {
      unsettled.delete(extent);
      this.#unsettled.delete(extent);
    };
    try {
      const ranges = batch.map(({ at, length }) => ({ at, length }));
      const digests = await this.#patience.guard(ask(ranges));
      const again: CopiedExtent[] = [];
      for (const [index, extent] of batch.entries()) {
        if (link.hasCheck(extent, CHECK.tainted)) {
          again.push(extent);
          continue;
        }
        settle(extent);
        link.setCheck(extent, CHECK.none);
        if (this.#isEqual(extent, extent.digest, digests[index])) continue;
        this.#strike(extent, (strikes) => this.options.onMismatch(extent, strikes));
      }
      // Each leaves its extent as it must be, at once: by the end others may have taken it.
      const outcomes = await Promise.allSettled(
        again.map((extent) => this.#checkAgain(extent).finally(() => settle(extent))),
      );
      for (const outcome of outcomes) if (outcome.status === "rejected") throw outcome.reason;
    } finally {
      for (const extent of unsettled) {
        link.setCheck(extent, CHECK.none);
        link.map.markDirty(extent.at, extent.length);
        this.#unsettled.delete(extent);
      }
    }
  }

  /** New writes wait; both sides are read; they must be equal. */
  async #checkAgain(extent: Range) {
    const { volume, link, ask, digestSource, limit } = this.options;
    const range = { at: extent.at, length: extent.length };
    let settled = false;
    try {
      await volume.lock(range);
      const answers = Promise.all([digestSource(range), ask([range])]);
      const [source, [target]] = await limit(this.#patience.guard(answers));
      // Write-through has ended meanwhile, with writes that the target did not get: they differ for that.
      if (!link.holdsLock(range) || link.lacks(range)) return;
      settled = true;
      link.setCheck(range, CHECK.none);
      if (this.#isEqual(range, source, target)) return;
      this.#strike(range, () => this.options.onUnequal(range));
    } finally {
      if (!settled) {
        link.setCheck(range, CHECK.none);
        link.map.markDirty(range.at, range.length);
      }
      volume.unlock(range);
    }
  }

  #isEqual(range: Range, source: string, target: string | undefined): boolean {
    this.checked++;
    if (source !== target) return false;
    this.#strikes.delete(range.at);
    this.options.link.setVerified(range);
    return true;
  }

  #strike(range: Range, tell: (strikes: number) => void) {
    this.mismatched++;
    const strikes = (this.#strikes.get(range.at) ?? 0) + 1;
    this.#strikes.set(range.at, strikes);
    this.options.link.map.markDirty(range.at, range.length);
    tell(strikes);
    if (strikes >= MAX_STRIKES) {
      throw new PsmaError(
        "verify/mismatch",
        `Cannot verify the mirror: ${range.length} bytes at ${range.at} differed from the ` +
          `source's ${strikes} times in a row`,
        { hint: "Check both stores' disks and network, then resume or cancel the mirror." },
      );
    }
  }
}
