/**
 * One mirror of one volume: rounds in the background, convergence on demand, the watch over write-through.
 * An async task on the data-plane thread; what it does to requests goes through Volume and MirrorLink.
 *
 * Faults: a lost target ends write-through at once, turns what was not flushed there into dirty chunks and is
 * waited for; a failed round is tried again with backoff, for ever; three wrong digests in a row on one extent
 * fail the mirror until someone resumes it. The source is never at risk: the mirror only reads it.
 */
import { PsmaError, Signal, toPsmaError } from "../core/mod.ts";
import type { MirrorRecord, MirrorTerms } from "../volume/mod.ts";
import { DigestChecks } from "./checks.ts";
import { ConvergenceWatch, Deadlines, isLittle, WriterWatch } from "./convergence.ts";
import { Cooling } from "./cooling.ts";
import { Copier } from "./copier.ts";
import { whileCopying } from "./copying.ts";
import { DIGEST_ALGORITHM } from "./digest.ts";
import { tellMismatch, tellUnequal } from "./events.ts";
import { LockStep } from "./lock_step.ts";
import type { MirrorOptions, MirrorProgress } from "./mirror_options.ts";
import { limitsOf, Pacer } from "./pace.ts";
import { Progress } from "./progress.ts";
import { type Guidance, Scheduler } from "./scheduler.ts";
import { type MirrorEvent, type MirrorState, next, step } from "./state.ts";
import { whyAway } from "./target_control.ts";
import { comparisonWaitsFor, MirrorVerification } from "./verification.ts";
import { WriteThroughWatch } from "./write_through_watch.ts";

const RETRY_FIRST_MS = 100, RETRY_MAX_MS = 5000;
const IDLE_MS = 100;
/** Converging begins write-through when little is dirty, or after so many. */
const ROUNDS_BEFORE_WRITE_THROUGH = 4;
/** A round after which so much of what was dirty before is dirty again is not worth repeating. */
const GAINED_LITTLE = 0.5;
/** How often the progress of the first sync is made durable. */
const REMEMBER_EVERY_MS = 10_000;

export class Mirror {
  readonly checks: DigestChecks;
  readonly copier: Copier;
  readonly verification: MirrorVerification;
  /** A converge asked for the gate to be passed, at this time (monotonic). */
  #gateWantedMs = -Infinity;
  readonly #options: MirrorOptions;
  readonly #pacer: Pacer;
  #state: MirrorState;
  #reason: string | undefined;
  #wantReady = false;
  readonly #deadlines: Deadlines;
  #ended = false;
  #finished: Promise<void> | undefined;
  #ending: Promise<void> | undefined;
  readonly #change: Signal;
  #rounds = 0;
  #gainedLittle = false;
  #terms: MirrorTerms;
  #rememberedMs: number;
  readonly #watch: WriteThroughWatch;
  readonly #cooling: Cooling;
  readonly #lockStep: LockStep;
  readonly #progress: Progress;
  readonly #scheduler: Scheduler;

  constructor(options: MirrorOptions) {
    this.#options = options;
    const { volume, link, calls, turns, memory, digest, record, clock } = options;
    // A link that is in write-through already goes on with lock-step.
    this.#state = options.record.paused ? "paused" : link.writeThrough ? "ready" : "requested";
    this.#wantReady = this.#keepsReady;
    this.#change = new Signal(turns);
    this.#terms = record.terms;
    this.#rememberedMs = clock.monotonicMs();
    this.#watch = new WriteThroughWatch(options, () => this.#terms.write_through_timeout_ms);
    this.#lockStep = new LockStep(clock);
    this.#deadlines = new Deadlines(link, clock);
    const { counters } = volume, sleep = (ms: number) => turns.sleep(ms);
    this.#pacer = new Pacer({
      counters,
      clock,
      sleep,
      limits: limitsOf(record.terms),
      undisturbed: options.undisturbed,
      isWriteThrough: () => link.writeThrough && !link.follows,
      isFollowing: () => link.writeThrough && link.follows,
      neededBytesPerSecond: () =>
        Math.max(this.#deadlines.neededBytesPerSecond, this.verification.neededBytesPerSecond),
    });
    this.checks = new DigestChecks({
      volume,
      link,
      turns,
      ask: (ranges) => options.control.digests(ranges),
      digestSource: (range) => this.copier.digestSource(range),
      limit: (work) => this.#limit(work),
      onMismatch: (range, strikes) => tellMismatch(options.emit, range, strikes),
      onUnequal: (range) => tellUnequal(options.emit, range),
    });
    const { checks } = this, pacer = this.#pacer;
    this.copier = new Copier({ volume, link, calls, memory, pacer, checks, digest });
    this.#cooling = new Cooling({ ...options, copier: this.copier });
    this.verification = new MirrorVerification({
      ...options,
      copier: this.copier,
      checks: this.checks,
      pacer: this.#pacer,
      limit: (work) => this.#limit(work, 0.5),
      waitsFor: () => this.#verifyWaitsFor(),
      ask: (ranges) => options.control.digests(ranges),
      onUnequal: (range, tell) => {
        this.#change.tell();
        if (tell) tellUnequal(options.emit, range);
      },
    });
    this.#progress = new Progress({
      clock,
      work: () => ({
        copiedBytes: this.copier.copiedBytes + this.verification.doubts.equalBytes,
        changedBytes: link.changedBytes,
        dirtyBytes: link.map.dirtyBytes,
      }),
      first: record.first_sync === undefined ? { total_bytes: 0, percent: 0 } : record.first_sync,
    });
    this.#scheduler = new Scheduler({
      ...options,
      terms: record.terms,
      progress: this.#progress,
      setLimits: (limits) => pacer.setLimits(limits),
    });
    if (this.#state === "ready") this.#scheduler.isWhole();
    // A target must never hold the application: what it does not answer fails, and is copied again.
    link.target.setLossPolicy("fail");
    link.onFallback = (reason) => this.#fellBack(reason);
    link.target.onLost = () => {
      volume.dropWriteThrough("the target's connection was lost");
      if (!link.committing) link.targetLost();
    };
  }

  get state(): MirrorState {
    return this.#state;
  }

  /** As it was started, with the terms that hold now. */
  get record(): MirrorRecord {
    return { ...this.#options.record, terms: this.#terms };
  }

  start(): void {
    if (this.#options.link.writeThrough) this.#watch.begin();
    this.#finished = this.#run();
    this.#cooling.start();
  }

  progress(): MirrorProgress {
    const { link } = this.#options;
    const waitMs = Math.max(0, this.#scheduler.untilNextMs ?? 0);
    return {
      ...this.#progress.report({ stands: this.#stands(), waitMs }),
      state: this.#state,
      reason: this.#reason,
      copiedBytes: this.copier.copiedBytes,
      changedBytes: link.changedBytes,
      lagMs: this.#scheduler.lagMs,
      rounds: this.#rounds,
      writeThrough: link.writeThrough,
      scheduled: this.#scheduler.scheduled,
      digests: {
        algorithm: DIGEST_ALGORITHM,
        checked: this.checks.checked,
        mismatched: this.checks.mismatched,
        unverifiedBytes: link.unverifiedBytes,
      },
    };
  }

  /** What is predicted, for the schedule. */
  guide(guidance: Guidance): void {
    this.#scheduler.guide(guidance);
    this.#change.tell();
  }

  /** From now on; what they say of durability holds for the next mirror. */
  setTerms(terms: MirrorTerms): void {
    this.#terms = terms;
    this.#scheduler.setTerms(terms);
    this.#change.tell();
  }

  /** Why no round can begin or go on; undefined: one can. */
  #stands(): string | undefined {
    if (this.#state === "paused") return "the mirror is paused";
    if (this.#state === "failed") return `the mirror has failed (${this.#reason ?? "no reason"})`;
    return whyAway(this.#options.link.target);
  }

  get #keepsReady(): boolean {
    return this.#options.keepsReady === true;
  }

  /** @param cuts false: nothing is copied afterwards, and what is on its way to the target may land. */
  pause(cuts = true): void {
    if (!next(this.#state, "pause")) return;
    this.#wantReady = false;
    this.#options.volume.dropWriteThrough(undefined, cuts);
    this.copier.stop();
    this.#to("pause", "asked for");
  }

  resume(): void {
    if (this.#state !== "paused" && this.#state !== "failed") return;
    this.#wantReady = this.#keepsReady;
    this.#to("resume");
  }

  /**
   * Reaches write-through with nothing dirty, every copy checked and both sides flushed.
   * @throws {PsmaError} timeout/converge, or state/paused, or why the mirror failed.
   */
  async converge(timeoutMs: number): Promise<void> {
    await this.#deadlines.during(timeoutMs, this.#reachReady(timeoutMs));
  }

  async #reachReady(timeoutMs: number): Promise<void> {
    const { clock } = this.#options;
    const begunMs = clock.monotonicMs(), deadline = begunMs + timeoutMs;
    const watch = new ConvergenceWatch(this.#options.link, this.copier, timeoutMs);
    this.#wantReady = true;
    this.#gateWantedMs = begunMs;
    this.#lockStep.now();
    this.#change.tell();
    while (this.#state !== "ready" || !this.verification.gate.passedSince(begunMs)) {
      if (this.#ended) throw new PsmaError("state/ended", "Cannot converge: the mirror has ended");
      if (this.#state === "paused" || this.#state === "failed") {
        throw new PsmaError(
          "state/mirror",
          `Cannot converge: the mirror is ${this.#state} (${this.#reason ?? "no reason given"})`,
          { hint: "Resume the mirror first." },
        );
      }
      const left = deadline - clock.monotonicMs();
      if (left <= 0) {
        this.#wantReady = this.#keepsReady;
        const missed = watch.missed(this.#options.emit);
        this.#options.volume.dropWriteThrough(undefined);
        throw missed;
      }
      await this.#wait(Math.min(left, IDLE_MS));
    }
  }

  /** For the cutover: true while every precondition of it holds. */
  get isReady(): boolean {
    const { link } = this.#options;
    return this.#state === "ready" && link.writeThrough && link.map.dirtyChunks === 0;
  }

  cutoverBegins(): void {
    this.#to("cutover");
  }

  cutoverEnds(committed: boolean): void {
    if (committed) this.#ended = true;
    const { link } = this.#options, isWhole = link.writeThrough && link.map.dirtyChunks === 0;
    let event: MirrorEvent = this.#keepsReady && isWhole ? "kept" : "aborted";
    if (committed) event = "committed";
    // Ready once more meanwhile, which the end of write-through undoes.
    else if (this.#state === "ready" && !isWhole) event = "fell-back";
    if (next(this.#state, event)) this.#to(event);
    this.#wantReady = this.#keepsReady;
  }

  /** Ends the task, once. The link stays with the volume until the caller detaches it. */
  end(): Promise<void> {
    return this.#ending ??= this.#end();
  }

  async #end(): Promise<void> {
    this.#ended = true;
    this.copier.stop(true);
    this.checks.abandon();
    this.#change.tell();
    const cooled = this.#cooling.end();
    await this.verification.end();
    await Promise.all([this.#finished, cooled]);
    await this.checks.settle().catch(() => {});
    await this.copier.close();
  }

  async #run() {
    let retryMs = RETRY_FIRST_MS;
    while (!this.#ended) {
      try {
        await this.#turn();
        retryMs = RETRY_FIRST_MS;
      } catch (error) {
        if (this.#ended) return;
        const failure = toPsmaError(error);
        this.#reason = failure.message;
        await this.checks.settle().catch(() => {});
        if (failure.code === "verify/mismatch") {
          this.#options.volume.dropWriteThrough(undefined);
          if (next(this.#state, "fail")) this.#to("fail", failure.message);
          this.#options.emit("mirror.failed", "error", failure.message);
          continue;
        }
        if (retryMs === RETRY_FIRST_MS) {
          this.#options.emit("mirror.interrupted", "warning", failure.message);
        }
        await this.#options.turns.sleep(retryMs);
        retryMs = Math.min(retryMs * 2, RETRY_MAX_MS);
      }
    }
  }

  /** One step of the task: a round, a convergence, or a wait. */
  async #turn() {
    const { link } = this.#options;
    this.#scheduler.look(this.#stands());
    if (this.#state === "paused" || this.#state === "failed" || this.#state === "switching") {
      await this.#wait(IDLE_MS);
    } else if (!link.target.connected) {
      this.#reason = [whyAway(link.target) ?? [], link.target.fault ?? []].flat().join(": ");
      await this.#wait(IDLE_MS);
    } else if (this.#state === "ready") {
      if (link.map.dirtyChunks > 0) return this.#to("fell-back", "a comparison found a difference");
      if (!link.writeThrough) return this.#to("fell-back", "the gate took too long");
      if (this.#wantReady && !this.verification.gate.passedSince(this.#gateWantedMs)) {
        await this.verification.gate.pass(() =>
          this.#state === "ready" && this.#wantReady && !this.#ended
        );
        return this.#change.tell();
      }
      await this.#wait(IDLE_MS);
      if (!this.#wantReady && this.#state === "ready") {
        this.#options.volume.dropWriteThrough("it is not needed now");
      }
    } else if (this.#mayConverge && this.#state !== "requested") await this.#converge();
    else if (this.#state === "converging") this.#to("fell-back");
    else if (this.#state === "tracking") {
      const isDue = (this.#scheduler.untilNextMs ?? 1) <= 0;
      if (!isDue) return await this.#wait(this.#untilLookMs(this.#scheduler.waitMs));
      if (!this.verification.isRunning) this.#pacer.observeUndisturbed();
      await this.#round("round");
    } else await this.#round("first-round");
  }

  /** A background round: what the schedule wants of what is dirty now, checked and flushed. */
  async #round(event: MirrorEvent) {
    const isFirst = this.#progress.first !== null;
    const scopeBytes = isFirst ? null : this.#scheduler.scopeBytes;
    if (next(this.#state, event)) this.#to(event);
    const isOver = await this.#copying(async () => {
      const isComplete = await this.#copyTracking(scopeBytes);
      // Ended early, for write-through to be entered now.
      if (this.#mayConverge && this.#gainedLittle) return false;
      await this.copier.flushTarget();
      return isComplete && next(this.#state, "round-done") !== undefined;
    });
    if (this.#mayConverge && this.#gainedLittle) return;
    if (!next(this.#state, "round-done")) return;
    this.#rounds++;
    this.#reason = undefined;
    this.#to("round-done");
    if (isOver && isFirst) this.#tellSynced();
  }

  #tellSynced() {
    this.#options.onFirstSync?.(null);
    this.#options.emit("mirror.synced", "info", "The mirror has what the volume had", {
      copied_bytes: this.copier.copiedBytes,
      digests_checked: this.checks.checked,
    });
  }

  /** @param work says whether all was copied. */
  async #copying(work: () => Promise<boolean>): Promise<boolean> {
    return await whileCopying(this.#options.turns, this.#scheduler, work, () => {
      this.#scheduler.look(this.#stands());
      this.#remember();
    });
  }

  #remember() {
    const { first } = this.#progress, now = this.#options.clock.monotonicMs();
    if (first === null || now - this.#rememberedMs < REMEMBER_EVERY_MS) return;
    this.#rememberedMs = now;
    this.#options.onFirstSync?.(first);
  }

  /** @returns whether all was copied that was dirty when it began. */
  async #copyTracking(scopeBytes: number | null = null): Promise<boolean> {
    const mayCopy = () => !this.#ended && this.#state !== "paused" && this.#state !== "failed";
    if (!await this.verification.doubts.resolve(mayCopy)) return false;
    const { link } = this.#options, { map } = link, before = map.dirtyBytes;
    const { mismatched } = this.checks, writer = new WriterWatch(link, this.copier);
    const isFutile = () => this.#mayConverge && writer.keepsUp;
    const isWhole = await this.copier.round("tracking", { mostBytes: scopeBytes, isFutile });
    await this.checks.settle();
    const isAll = isWhole && await this.copier.copyPassedBy();
    await this.checks.settle();
    this.#gainedLittle = writer.kept || map.dirtyBytes > before * GAINED_LITTLE;
    return isAll && this.checks.mismatched === mismatched;
  }

  async #converge() {
    const isFirst = this.#progress.first !== null;
    if (this.#state !== "converging") this.#to("converge");
    const isReady = await this.#copying(() => this.#getReady());
    if (!isReady) return;
    this.#rounds = Math.max(1, this.#rounds);
    if (isFirst) this.#tellSynced();
  }

  /** @returns whether it is ready. */
  async #getReady(): Promise<boolean> {
    const { volume, link, calls } = this.#options;
    for (let round = 0; this.#converging && round < ROUNDS_BEFORE_WRITE_THROUGH; round++) {
      // Where the application dirties as fast as that is, only write-through gets ahead of it.
      if (link.writeThrough || this.#gainedLittle) break;
      if (isLittle(link.map.dirtyBytes, volume.sizeBytes)) break;
      await this.#copyTracking();
    }
    if (!this.#converging) return false;
    volume.enterWriteThrough({ follows: true });
    this.#watch.begin();
    while (this.#converging && link.writeThrough && link.map.dirtyChunks > 0) {
      await this.copier.round("locked");
      await this.checks.settle();
      // Chunks that were just being compared were left out.
      await this.verification.settle();
    }
    await this.verification.gate.pass(() => this.#converging && link.writeThrough);
    if (!this.#converging || !link.writeThrough) return false;
    await volume.enterLockStep();
    await this.copier.flushTarget();
    if (await volume.flushActive(calls) !== 0) {
      throw new PsmaError("io/flush", "Cannot converge: the source does not flush");
    }
    if (!this.#converging || !link.writeThrough || link.map.dirtyChunks > 0) return false;
    this.#reason = undefined;
    this.#to("all-clean");
    this.#lockStep.reached();
    if (this.#keepsReady) {
      this.#options.emit("mirror.in-step", "info", "Every acknowledged write is on both stores");
    }
    return true;
  }

  get #mayConverge(): boolean {
    return this.#wantReady && this.#lockStep.untilMs <= 0;
  }

  /** The wait for the next look, cut short where write-through is to be reached again before. */
  #untilLookMs(waitMs: number): number {
    return this.#wantReady ? Math.min(waitMs, this.#lockStep.untilMs) : waitMs;
  }

  get #converging(): boolean {
    return this.#state === "converging" && this.#wantReady && !this.#ended;
  }

  #fellBack(reason: string) {
    this.#reason = reason;
    if (this.#keepsReady) this.#lockStep.putOff();
    if (next(this.#state, "fell-back")) this.#to("fell-back", reason);
    this.#options.emit("mirror.fell-back", "warning", `Write-through ended: ${reason}`, {
      dirty_bytes: this.#options.link.map.dirtyBytes,
    });
  }

  #verifyWaitsFor(): string | undefined {
    if (this.#ended) return "the mirror has ended";
    return whyAway(this.#options.link.target) ?? comparisonWaitsFor(this.#state, this.#reason);
  }

  /** @param share of the write-through time limit. */
  async #limit<T>(work: Promise<T>, share = 1): Promise<T> {
    const { turns } = this.#options;
    const late = turns.sleep(this.#terms.write_through_timeout_ms * share).then(() => {
      throw new PsmaError("timeout/check", "Cannot check an extent: the store did not answer");
    });
    late.catch(() => {});
    return await Promise.race([work, late]);
  }

  #to(event: MirrorEvent, reason?: string) {
    this.#state = step(this.#state, event);
    if (reason !== undefined) this.#reason = reason;
    const { volume, link } = this.#options;
    volume.counters.setMirror({
      dirty: link.map.dirtyBytes,
      copied: this.copier.copiedBytes,
      changed: link.changedBytes,
    });
    this.#change.tell();
  }

  async #wait(ms: number) {
    await this.#change.or(this.#options.turns.sleep(ms));
  }
}
