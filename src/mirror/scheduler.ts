/**
 * The schedule at work: measures, asks `decide`, sets the copier's limits, and tells what has changed and why.
 * The mirror asks it when the next round is due and tells it when rounds begin and end.
 *
 * Guidance comes from outside, now and then, and grows old; without it, or with it gone, what is measured here
 * decides alone: rounds as late as the RPO allows.
 */
import { type Clock, formatDuration, formatSize } from "../core/mod.ts";
import type { ChangeMap, Counters, MirrorLink, MirrorTerms } from "../volume/mod.ts";
import type { MirrorEventSink } from "./events.ts";
import { type Behind, Lag } from "./lag.ts";
import { FLOOR_BYTES_PER_S, type PaceLimits } from "./pace.ts";
import type { LoadStep } from "./predicted_load.ts";
import type { Progress } from "./progress.ts";
import { RateMeter } from "./rate_meter.ts";
import { type ReasonCode, sentenceOf } from "./reasons.ts";
import { decide, type ScheduleDecision } from "./schedule.ts";

/** What is predicted, from whoever forecasts. Times are wall time. */
export interface Guidance {
  /** From then on it counts for nothing. */
  readonly valid_until_ms: number;
  /** When the mirror must be complete; null: no need is in sight. */
  readonly deadline_ms: number | null;
  /** Ascending, not overlapping. */
  readonly steps: readonly LoadStep[];
}

/** As status shows it. */
export interface Scheduled {
  /** Wall time; null: nothing is dirty, or a round is under way. */
  readonly nextRoundMs: number | null;
  readonly limits: PaceLimits;
  /** Sentences, the weightiest first. */
  readonly because: readonly string[];
}

export interface SchedulerOptions {
  readonly volume: {
    readonly sizeBytes: number;
    readonly counters: Pick<Counters, "writtenBytes">;
  };
  readonly link: Pick<MirrorLink, "changedBytes" | "unverifiedBytes"> & {
    readonly map: Pick<ChangeMap, "dirtyBytes">;
  };
  readonly clock: Clock;
  readonly terms: MirrorTerms;
  readonly progress: Progress;
  readonly setLimits: (limits: PaceLimits) => void;
  readonly emit: MirrorEventSink;
}

const WRITTEN_SPAN_MS = 60_000, DIRTY_PER_WRITTEN_MAX = 16;
/** Between two looks at a volume that changes, and at least so many of them in an RPO. */
const LOOK_MS_MAX = 1000, LOOKS_PER_RPO = 10;
/** Changes of mind are told so often at most. */
const TELL_EVERY_MS = 10_000, TELL_RPO_EVERY_MS = 60_000;
/** A floor that moved less is the same floor. */
const FLOOR_CHANGE = 0.5;
/** That there is nothing to do, nothing to choose, or that a round has just ended. */
const NO_DECISION: ReadonlySet<ReasonCode> = new Set(["clean", "incomplete", "spacing"]);
/** What decides about rates, also of a round under way. */
const LIMITS: ReadonlySet<ReasonCode> = new Set([
  "deadline",
  "too-slow",
  "late",
  "ceiling",
  "window",
]);

/** The decision that was told last; `atMs` is monotonic. */
interface Told {
  readonly plan: readonly ReasonCode[];
  readonly limits: string;
  readonly atMs: number;
}

export class Scheduler {
  readonly #options: SchedulerOptions;
  readonly #lag: Lag;
  readonly #written = new RateMeter(WRITTEN_SPAN_MS);
  #terms: MirrorTerms;
  #guidance: Guidance | undefined;
  #decision: ScheduleDecision;
  #lookedMs: number;
  #writtenBytes: number;
  /** Monotonic. */
  #roundBeganMs: number | undefined;
  #lastRound: { endedMs: number; tookMs: number } | null = null;
  #told: Told;
  /** When each plan was told last; monotonic. */
  readonly #plansTold = new Map<string, number>();
  /** Why no round can begin: what is decided meanwhile is not told. */
  #stands: string | undefined;
  #missed = false;
  #missedToldMs = -Infinity;

  constructor(options: SchedulerOptions) {
    const { clock, link, volume, terms } = options;
    this.#options = options;
    this.#terms = terms;
    this.#lookedMs = clock.monotonicMs();
    this.#writtenBytes = volume.counters.writtenBytes;
    this.#lag = new Lag({ nowMs: this.#lookedMs, changedBytes: link.changedBytes });
    this.#decision = this.#decide();
    const limits = `0 ${this.#decision.ceilingBytesPerSecond}`;
    this.#told = { plan: [], limits, atMs: -Infinity };
  }

  setTerms(terms: MirrorTerms): void {
    this.#terms = terms;
    this.#follow();
  }

  guide(guidance: Guidance): void {
    this.#guidance = guidance;
    this.#follow();
  }

  /** Age of the oldest write that the target lacks; null before the target was complete for the first time. */
  get lagMs(): number | null {
    const { oldestMs } = this.#lag;
    if (oldestMs === undefined) return null;
    return oldestMs === null ? 0 : Math.round(this.#options.clock.monotonicMs() - oldestMs);
  }

  /**
   * Measures and decides anew.
   * @param stands why no round can begin or go on; then a lag beyond the RPO has this reason.
   */
  look(stands?: string): void {
    const { clock, progress, volume } = this.#options;
    const now = clock.monotonicMs(), ms = now - this.#lookedMs;
    this.#lag.look(this.#behind(now));
    progress.look();
    if (ms >= 100) {
      const { writtenBytes } = volume.counters;
      this.#written.add(ms, writtenBytes - this.#writtenBytes);
      this.#writtenBytes = writtenBytes;
      this.#lookedMs = now;
    }
    this.#stands = stands;
    this.#follow();
    this.#watchRpo(stands);
  }

  /** How long to wait before the next look: not beyond the next round. */
  get waitMs(): number {
    const most = Math.min(LOOK_MS_MAX, Math.max(1, this.#terms.resync_interval_ms / LOOKS_PER_RPO));
    return Math.min(most, Math.max(1, this.untilNextMs ?? Infinity));
  }

  /** Milliseconds until the next round is due; not above 0 when it is; null when nothing is dirty. */
  get untilNextMs(): number | null {
    const { nextRoundMs } = this.#decision;
    return nextRoundMs === null ? null : nextRoundMs - this.#options.clock.nowMs();
  }

  /** What the next round is to copy at most; null for all. */
  get scopeBytes(): number | null {
    return this.#decision.scopeBytes;
  }

  roundBegins(): void {
    const now = this.#options.clock.monotonicMs();
    this.#roundBeganMs = now;
    this.#lag.roundBegins(this.#behind(now));
    this.#options.progress.copyingBegins();
    this.#follow();
  }

  /** @param isComplete all that was dirty when it began is durable at the target. */
  roundEnds(isComplete: boolean): void {
    const { clock, progress } = this.#options, now = clock.monotonicMs();
    const tookMs = now - (this.#roundBeganMs ?? now);
    this.#roundBeganMs = undefined;
    this.#lastRound = { endedMs: now, tookMs };
    progress.copyingEnds(isComplete);
    this.#lag.roundEnds(this.#behind(now), isComplete);
    this.#follow();
  }

  /** Both sides are equal and written to together. */
  isWhole(): void {
    this.#lag.isWhole(this.#behind(this.#options.clock.monotonicMs()));
  }

  get scheduled(): Scheduled {
    const { nextRoundMs, because } = this.#decision;
    return {
      nextRoundMs,
      limits: limitsFrom(this.#decision),
      because: because.map(sentenceOf),
    };
  }

  #behind(nowMs: number): Behind {
    const { changedBytes, map: { dirtyBytes } } = this.#options.link;
    return { nowMs, changedBytes, dirtyBytes };
  }

  /** While it counts. */
  #guidanceAt(nowMs: number): Guidance | undefined {
    const guidance = this.#guidance;
    return guidance !== undefined && guidance.valid_until_ms > nowMs ? guidance : undefined;
  }

  #decide(): ScheduleDecision {
    const { clock, link, progress, volume } = this.#options;
    const nowMs = clock.nowMs(), monotonicMs = clock.monotonicMs();
    const wall = (atMs: number) => nowMs - (monotonicMs - atMs);
    const { oldestMs, changedMs } = this.#lag;
    const guidance = this.#guidanceAt(nowMs);
    const dirty = progress.dirtyBytesPerSecond, written = this.#written.bytesPerSecond ?? 0;
    return decide({
      nowMs,
      terms: this.#terms,
      volumeBytes: volume.sizeBytes,
      dirtyBytes: link.map.dirtyBytes,
      unverifiedBytes: link.unverifiedBytes,
      oldestWriteMs: oldestMs === undefined ? null : wall(oldestMs ?? monotonicMs),
      copyBytesPerSecond: progress.capacity,
      dirtyBytesPerSecond: dirty,
      dirtyPerWritten: written > 0 ? Math.min(DIRTY_PER_WRITTEN_MAX, dirty / written) : 1,
      quietForMs: monotonicMs - changedMs,
      lastRound: this.#lastRound &&
        { endedMs: wall(this.#lastRound.endedMs), tookMs: this.#lastRound.tookMs },
      predicted: guidance?.steps ?? [],
      deadlineMs: guidance?.deadline_ms ?? null,
      isCopying: this.#roundBeganMs !== undefined,
    });
  }

  #follow() {
    const { progress, setLimits } = this.#options;
    this.#decision = this.#decide();
    progress.setCeiling(this.#decision.ceilingBytesPerSecond);
    setLimits(limitsFrom(this.#decision));
    this.#tell();
  }

  /** Tells a decision that differs from the one told last, not too often. */
  #tell() {
    if (this.#stands !== undefined) return;
    const { clock, emit } = this.#options;
    const { because, ceilingBytesPerSecond, floorBytesPerSecond, nextRoundMs } = this.#decision;
    const floor = floorBytesPerSecond < FLOOR_BYTES_PER_S
      ? 0
      : Math.round(Math.log(floorBytesPerSecond) / FLOOR_CHANGE);
    const told = this.#told, limits = `${floor} ${ceilingBytesPerSecond}`;
    // While a round is under way only its limits are decided.
    const isCopying = this.#roundBeganMs !== undefined;
    const counts = (code: ReasonCode) => isCopying ? LIMITS.has(code) : !NO_DECISION.has(code);
    const plan = because.map(({ code }) => code).filter(counts), key = plan.join(" ");
    const before = isCopying ? told.plan.filter(counts) : told.plan;
    const isNewPlan = key !== "" && key !== before.join(" "), isNewLimit = limits !== told.limits;
    if (!isNewPlan && !isNewLimit) return;
    const now = clock.monotonicMs();
    // A mind that goes to and fro within one RPO is told once.
    const again = (this.#plansTold.get(key) ?? -Infinity) + this.#terms.resync_interval_ms;
    if (!isNewLimit && now < again) return;
    if (now - told.atMs < TELL_EVERY_MS) return;
    this.#plansTold.set(key, now);
    this.#told = { plan: key === "" ? told.plan : plan, limits, atMs: now };
    const { oldestMs } = this.#lag;
    const sentences = [...because.map(sentenceOf), limitsSentence(limitsFrom(this.#decision))];
    emit("mirror.scheduled", "info", sentences.join(" "), {
      because: because.map(({ code }) => code).join(" "),
      next_round_at: nextRoundMs === null ? null : new Date(nextRoundMs).toISOString(),
      scope_bytes: this.#decision.scopeBytes,
      floor_bytes_per_s: floorBytesPerSecond,
      ...this.#measured(),
      oldest_write_ms: oldestMs === undefined || oldestMs === null
        ? null
        : Math.round(now - oldestMs),
      rpo_ms: this.#terms.resync_interval_ms,
      ...this.#guided(),
    });
  }

  /** What was seen, and what copying is under. */
  #measured(): Record<string, number | null> {
    const { link, progress } = this.#options;
    return {
      dirty_bytes: link.map.dirtyBytes,
      dirty_bytes_per_s: Math.round(progress.dirtyBytesPerSecond),
      copy_bytes_per_s: progress.capacity === null ? null : Math.round(progress.capacity),
      ceiling_bytes_per_s: this.#decision.ceilingBytesPerSecond,
    };
  }

  /** What a decision took from the forecast. */
  #guided(): { deadline_at: string | null; predicted_steps: number } {
    const guidance = this.#guidanceAt(this.#options.clock.nowMs());
    if (guidance === undefined) return { deadline_at: null, predicted_steps: 0 };
    const { deadline_ms, steps } = guidance;
    return {
      deadline_at: deadline_ms === null ? null : new Date(deadline_ms).toISOString(),
      predicted_steps: steps.length,
    };
  }

  /** A promise that was not kept is told when it happens, and when it is over. */
  #watchRpo(stands: string | undefined) {
    const { clock, emit } = this.#options;
    const rpo_ms = this.#terms.resync_interval_ms, lag_ms = this.lagMs ?? 0;
    const isMissed = lag_ms > rpo_ms, now = clock.monotonicMs();
    if (isMissed === this.#missed || now - this.#missedToldMs < TELL_RPO_EVERY_MS) return;
    this.#missed = isMissed;
    this.#missedToldMs = now;
    const data = {
      lag_ms,
      rpo_ms,
      ...this.#measured(),
    };
    const rpo = formatDuration(rpo_ms);
    if (!isMissed) {
      return emit("mirror.rpo-kept", "info", `No write waits longer than ${rpo} any more`, data);
    }
    const late = this.#decision.because.filter(({ code }) => code === "late" || code === "ceiling");
    const why = stands === undefined ? late.map(sentenceOf).join(" ") : `It stands: ${stands}.`;
    emit(
      "mirror.rpo-missed",
      "warning",
      `A write has waited ${formatDuration(lag_ms)} for the mirror. ${
        why === "" ? `That is longer than ${rpo}: a round took longer than expected.` : why
      }`,
      data,
    );
  }
}

function limitsFrom(decision: ScheduleDecision): PaceLimits {
  return {
    floor_bytes_per_s: decision.floorBytesPerSecond,
    ceiling_bytes_per_s: decision.ceilingBytesPerSecond,
  };
}

function limitsSentence({ floor_bytes_per_s: floor, ceiling_bytes_per_s: ceiling }: PaceLimits) {
  const most = ceiling === null ? "" : ` and at most ${formatSize(ceiling)}/s`;
  return floor < FLOOR_BYTES_PER_S && ceiling === null
    ? "Beyond that the application comes first."
    : `Copying keeps at least ${formatSize(floor)}/s${most} beside the application.`;
}
