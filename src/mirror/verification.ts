/** What a mirror compares besides its copies: the gate before a switch, and a verify on demand. */
import type { Clock, Turns } from "../core/mod.ts";
import type { MirrorLink, Range, Volume } from "../volume/mod.ts";
import type { DigestChecks } from "./checks.ts";
import { Doubts } from "./doubts.ts";
import { Comparison } from "./comparison.ts";
import type { Copier } from "./copier.ts";
import { IDLE_STEP_BYTES, type Pacer } from "./pace.ts";
import type { MirrorState } from "./state.ts";
import { Verify, type VerifyOptions } from "./verify.ts";
import { VerifyGate } from "./verify_gate.ts";

/** Of what copying costs the application: nothing is sent, nothing is written. */
const COMPARING_COSTS = 0.5;

export interface MirrorVerificationOptions {
  readonly volume: Volume;
  readonly link: MirrorLink;
  readonly turns: Turns;
  readonly clock: Clock;
  /** Digests of what the target persisted, one per extent, in order. */
  readonly ask: (extents: readonly Range[]) => Promise<readonly string[]>;
  readonly copier: Copier;
  readonly checks: DigestChecks;
  readonly pacer: Pacer;
  /** Rejects after half of the write-through time limit: what waits for a comparison does not end write-through. */
  readonly limit: <T>(work: Promise<T>) => Promise<T>;
  /** Why nothing can be compared now; undefined when it can. */
  readonly waitsFor: () => string | undefined;
  /** Both sides differ there; it is dirty now. @param tell whether it is worth an event of its own. */
  readonly onUnequal: (range: Range, tell: boolean) => void;
}

export class MirrorVerification {
  readonly gate: VerifyGate;
  readonly doubts: Doubts;
  readonly #comparison: Comparison;
  #verify: Verify | undefined;
  /** Nobody waits for a rate any more. */
  #ended = false;

  constructor(readonly options: MirrorVerificationOptions) {
    const { volume, link, turns, clock, ask, copier, checks, pacer, limit } = options;
    this.#comparison = new Comparison({
      volume,
      link,
      turns,
      ask,
      digestSource: (range) => copier.digestSource(range),
      flushTarget: () => copier.flushTarget(),
      stepBytes: () => pacer.stepBytes,
      limit,
      onCompared: (count) => void (checks.checked += count),
    });
    const admit = (bytes: number) => pacer.admit(bytes * COMPARING_COSTS, () => this.#ended);
    this.doubts = new Doubts({ link, comparison: this.#comparison, admit });
    this.gate = new VerifyGate({
      link,
      clock,
      comparison: this.#comparison,
      admit,
      isBusy: () => pacer.stepBytes < IDLE_STEP_BYTES,
      onUnequal: (chunk) => this.#foundUnequal(this.#comparison.rangeOf(chunk), true),
    });
  }

  /** Begins to compare both sides, or goes on with it. The verify before must have ended. */
  start(options: Pick<VerifyOptions, "record" | "save" | "onEnd">): Verify {
    const { link: { map }, turns, clock, pacer, waitsFor } = this.options;
    const comparison = this.#comparison;
    this.#verify = new Verify({
      ...options,
      turns,
      clock,
      sides: {
        chunkBytes: map.chunkBytes,
        compare: (chunks) => comparison.compare(chunks),
        compareLocked: (chunk) => comparison.compareLocked(chunk),
        holes: (chunks) => comparison.holes(chunks),
        rangeOf: (chunk) => comparison.rangeOf(chunk),
      },
      admit: (bytes) => pacer.admit(bytes, () => this.#ended),
      waitsFor,
      onMismatch: (range, tell) => this.#foundUnequal(range, tell),
    });
    this.#verify.start();
    return this.#verify;
  }

  /** How fast the pacer has to let chunks be compared now, in its own bytes per second. */
  get neededBytesPerSecond(): number {
    return this.gate.neededBytesPerSecond * COMPARING_COSTS;
  }

  /** A verify is under way: what the application's latency is meanwhile is not its undisturbed one. */
  get isRunning(): boolean {
    return this.#verify?.record.state === "running";
  }

  /** Resolves when nothing is being compared: what was is free to be copied. */
  settle(): Promise<void> {
    return this.#comparison.settle();
  }

  /** Ends all of it; a verify that runs is gone on with by whoever continues with the mirror. */
  async end(): Promise<void> {
    this.#ended = true;
    this.#comparison.abandon();
    await this.#verify?.halt();
    await this.#comparison.settle();
  }

  /** Both sides differ where they should not: copied again from the source, counted, told. */
  #foundUnequal(range: Range, tell: boolean) {
    const { link, checks, onUnequal } = this.options;
    link.map.markDirty(range.at, range.length);
    // At once, since nobody may switch to it now; a power loss before the log has it forgets no more than the finding.
    link.log?.want(range.at, range.length);
    checks.mismatched++;
    onUnequal(range, tell);
  }
}

/** Why a mirror in that state has nothing to be compared; undefined when it has. */
export function comparisonWaitsFor(
  state: MirrorState,
  reason: string | undefined,
): string | undefined {
  switch (state) {
    case "requested":
    case "syncing":
      return "the first round is under way";
    case "converging":
    case "switching":
      return "the mirror is getting ready to be switched to";
    case "failed":
      return `the mirror has failed (${reason ?? "no reason given"})`;
  }
  return undefined;
}
