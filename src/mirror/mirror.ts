/**
 * One mirror of one volume: rounds in the background, convergence on demand, the watch over write-through.
 * An async task on the data-plane thread; what it does to requests goes through Volume and MirrorLink.
 *
 * Faults: a lost target ends write-through at once, turns what was not flushed there into dirty chunks and is
 * waited for; a failed round is tried again with backoff, for ever; three wrong digests in a row on one extent
 * fail the mirror until someone resumes it. The source is never at risk: the mirror only reads it.
 */
import { type Clock, type MemorySource, PsmaError, toPsmaError, type Turns } from "../core/mod.ts";
import type { BackendCalls } from "../backend/mod.ts";
import type { MirrorLink, MirrorRecord, Range, Volume } from "../volume/mod.ts";
import { DigestChecks } from "./checks.ts";
import { ConvergenceWatch, WriterWatch } from "./convergence.ts";
import { Copier } from "./copier.ts";
import { type Digest, DIGEST_ALGORITHM } from "./digest.ts";
import type { MirrorEventSink } from "./events.ts";
import { type ApplicationLoad, limitsOf, type PaceLimits, Pacer } from "./pace.ts";
import type { MirrorProgress } from "./progress.ts";
import { RateMeter } from "./rate_meter.ts";
import { type MirrorEvent, type MirrorState, next, step } from "./state.ts";
import type { TargetControl } from "./target_control.ts";
import { MirrorVerification } from "./verification.ts";

const RETRY_FIRST_MS = 100, RETRY_MAX_MS = 5000;
const IDLE_MS = 100;
/** Converging begins write-through when this little is dirty, or after so many rounds. */
const SMALL_BYTES = 16 * 2 ** 20;
const ROUNDS_BEFORE_WRITE_THROUGH = 4;
/** A round after which so much of what was dirty before is dirty again is not worth repeating. */
const GAINED_LITTLE = 0.5;
/** Pauses before a mirror that is to be ready always tries it again, and how long it must last to begin anew. */
const READY_PAUSE_MS_MIN = 500, READY_PAUSE_MS_MAX = 60_000, LASTED_MS = 60_000;

export interface MirrorOptions {
  readonly record: MirrorRecord;
  readonly volume: Volume;
  readonly link: MirrorLink;
  readonly calls: BackendCalls;
  readonly turns: Turns;
  readonly memory: MemorySource;
  readonly clock: Clock;
  readonly control: TargetControl;
  readonly digest: Digest;
  readonly emit: MirrorEventSink;
  /** The application as it was before the mirror began, where that was seen. */
  readonly undisturbed?: ApplicationLoad | undefined;
  /** It is to be ready always: reached again by itself, with growing pauses, whenever it was left behind. */
  readonly keepsReady?: boolean;
}

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
  /** How many wait for it to get ready. */
  #awaiting = 0;
  #watching = false;
  #ended = false;
  #finished: Promise<void> | undefined;
  #change: { promise: Promise<void>; resolve: (value: void) => void };
  #rounds = 0;
  #gainedLittle = false;
  #completeSinceMs: number | null = null;
  #readyNotBeforeMs = 0;
  #readySinceMs = -Infinity;
  #pauseMs = READY_PAUSE_MS_MIN;
  readonly #rate: RateMeter;

  constructor(options: MirrorOptions) {
    this.#options = options;
    const { volume, link, calls, turns, memory, digest, record, clock } = options;
    // A link that is in write-through already goes on with lock-step.
    this.#state = options.record.paused ? "paused" : link.writeThrough ? "ready" : "requested";
    this.#wantReady = this.#keepsReady;
    this.#change = turns.deferred<void>();
    this.#rate = new RateMeter(clock);
    const { counters } = volume, sleep = (ms: number) => turns.sleep(ms);
    const { undisturbed } = options, limits = limitsOf(record.terms);
    this.#pacer = new Pacer({
      counters,
      clock,
      sleep,
      limits,
      undisturbed,
      isWriteThrough: () => link.writeThrough,
      isUrgent: () => this.#awaiting > 0,
    });
    this.checks = new DigestChecks({
      volume,
      link,
      ask: (ranges) => options.control.digests(ranges),
      digestSource: (range) => this.copier.digestSource(range),
      limit: (work) => this.#limit(work),
      onMismatch: (range, strikes) => this.#reportMismatch(range, strikes),
    });
    const { checks } = this, pacer = this.#pacer;
    this.copier = new Copier({ volume, link, calls, memory, pacer, checks, digest });
    this.verification = new MirrorVerification({
      ...options,
      copier: this.copier,
      checks: this.checks,
      pacer: this.#pacer,
      limit: (work) => this.#limit(work, 0.5),
      waitsFor: () => this.#verifyWaitsFor(),
      ask: (ranges) => options.control.digests(ranges),
      onUnequal: (range, tell) => this.#reportUnequal(range, tell),
    });
    // A target must never hold the application: what it does not answer fails, and is copied again.
    link.target.setLossPolicy("fail");
    link.onFallback = (reason) => this.#fellBack(reason);
    link.target.onLost = () => {
      volume.dropWriteThrough("the target's connection was lost");
      if (!link.committing) link.map.unstableToDirty();
    };
  }

  get state(): MirrorState {
    return this.#state;
  }

  get record(): MirrorRecord {
    return this.#options.record;
  }

  start(): void {
    if (this.#options.link.writeThrough) this.#watchWriteThrough();
    this.#finished = this.#run();
  }

  progress(): MirrorProgress {
    const { link, clock } = this.#options;
    const writeThrough = link.writeThrough && link.map.dirtyChunks === 0;
    const rate = this.#rate.measure(this.copier.copiedBytes);
    return {
      state: this.#state,
      reason: this.#reason,
      copiedBytes: this.copier.copiedBytes,
      changedBytes: link.changedBytes,
      dirtyBytes: link.map.dirtyBytes,
      rateBytesPerSecond: Math.round(rate),
      lagMs: writeThrough
        ? 0
        : this.#completeSinceMs === null
        ? null
        : Math.round(clock.monotonicMs() - this.#completeSinceMs),
      etaSeconds: link.map.dirtyChunks === 0
        ? 0
        : rate > 0
        ? Math.round(link.map.dirtyBytes / rate * 10) / 10
        : null,
      rounds: this.#rounds,
      writeThrough: link.writeThrough,
      digests: {
        algorithm: DIGEST_ALGORITHM,
        checked: this.checks.checked,
        mismatched: this.checks.mismatched,
        unverifiedBytes: link.unverifiedBytes,
      },
    };
  }

  /** How fast it may copy, from now on. */
  setLimits(limits: PaceLimits): void {
    this.#pacer.setLimits(limits);
  }

  get #keepsReady(): boolean {
    return this.#options.keepsReady === true;
  }

  pause(): void {
    if (!next(this.#state, "pause")) return;
    this.#wantReady = false;
    this.#options.volume.dropWriteThrough(undefined);
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
    this.#awaiting++;
    try {
      await this.#reachReady(timeoutMs);
    } finally {
      this.#awaiting--;
    }
  }

  async #reachReady(timeoutMs: number): Promise<void> {
    const { clock, turns } = this.#options;
    const begunMs = clock.monotonicMs(), deadline = begunMs + timeoutMs;
    const watch = new ConvergenceWatch(this.#options.link, this.copier, timeoutMs);
    this.#wantReady = true;
    this.#gateWantedMs = begunMs;
    this.#readyNotBeforeMs = 0;
    this.#signal();
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
      await Promise.race([this.#change.promise, turns.sleep(Math.min(left, IDLE_MS))]);
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

  /** Ends the task. The link stays with the volume until the caller detaches it. */
  async end(): Promise<void> {
    this.#ended = true;
    this.copier.stop();
    this.checks.abandon();
    this.#signal();
    await this.verification.end();
    await this.#finished;
    await this.checks.settle().catch(() => {});
    this.copier.close();
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
    const { link, record } = this.#options;
    if (this.#state === "paused" || this.#state === "failed" || this.#state === "switching") {
      await this.#wait(IDLE_MS);
    } else if (!link.target.connected) {
      this.#reason = ["the target is not reachable", link.target.fault ?? []].flat().join(": ");
      await this.#wait(IDLE_MS);
    } else if (this.#state === "ready") {
      if (link.map.dirtyChunks > 0) return this.#to("fell-back", "a comparison found a difference");
      if (this.#wantReady && !this.verification.gate.passedSince(this.#gateWantedMs)) {
        await this.verification.gate.pass(() =>
          this.#state === "ready" && this.#wantReady && !this.#ended
        );
        return this.#signal();
      }
      await this.#wait(IDLE_MS);
      if (!this.#wantReady && this.#state === "ready") {
        this.#options.volume.dropWriteThrough("it is not needed now");
      }
    } else if (this.#mayConverge && this.#state !== "requested") await this.#converge();
    else if (this.#state === "converging") this.#to("fell-back");
    else if (this.#state === "tracking") {
      const isWhole = this.#rounds > 0;
      await this.#wait(this.#untilNextMs(isWhole ? record.terms.resync_interval_ms : 0));
      if (this.#state !== "tracking" || this.#mayConverge || this.#ended) return;
      if (!this.verification.isRunning) this.#pacer.observeUndisturbed();
      if (link.map.dirtyChunks > 0) await this.#round("round");
      else this.#completeSinceMs = this.#options.clock.monotonicMs();
    } else await this.#round("first-round");
  }

  /** A background round: everything that is dirty now, checked and flushed. */
  async #round(event: MirrorEvent) {
    if (next(this.#state, event)) this.#to(event);
    const startedMs = this.#options.clock.monotonicMs();
    await this.#copyTracking();
    // Ended early, for write-through to be entered now.
    if (this.#mayConverge && this.#gainedLittle) return;
    await this.copier.flushTarget();
    if (!next(this.#state, "round-done")) return;
    this.#rounds++;
    this.#completeSinceMs = startedMs;
    this.#reason = undefined;
    this.#to("round-done");
    if (this.#rounds === 1) this.#tellSynced();
  }

  #tellSynced() {
    this.#options.emit("mirror.synced", "info", "The mirror has what the volume had", {
      copied_bytes: this.copier.copiedBytes,
      digests_checked: this.checks.checked,
    });
  }

  async #copyTracking() {
    const mayCopy = () => !this.#ended && this.#state !== "paused" && this.#state !== "failed";
    if (!await this.verification.doubts.resolve(mayCopy)) return;
    const { link } = this.#options, { map } = link, before = map.dirtyBytes;
    const writer = new WriterWatch(link, this.copier);
    await this.copier.round("tracking", () => this.#mayConverge && writer.keepsUp);
    await this.checks.settle();
    this.#gainedLittle = writer.kept || map.dirtyBytes > before * GAINED_LITTLE;
  }

  async #converge() {
    const { volume, link, calls } = this.#options;
    if (this.#state !== "converging") this.#to("converge");
    for (let round = 0; round < ROUNDS_BEFORE_WRITE_THROUGH; round++) {
      if (link.map.dirtyBytes <= SMALL_BYTES || !this.#converging) break;
      // The application dirties as fast as that is: only write-through gets ahead of it.
      if (this.#gainedLittle) break;
      await this.#copyTracking();
    }
    if (!this.#converging) return;
    volume.enterWriteThrough();
    this.#watchWriteThrough();
    while (this.#converging && link.writeThrough && link.map.dirtyChunks > 0) {
      await this.copier.round("locked");
      await this.checks.settle();
      // Chunks that were just being compared were left out.
      await this.verification.settle();
    }
    await this.verification.gate.pass(() => this.#converging && link.writeThrough);
    if (!this.#converging || !link.writeThrough) return;
    await this.copier.flushTarget();
    if (await calls.flush(volume.active) !== 0) {
      throw new PsmaError("io/flush", "Cannot converge: the source does not flush");
    }
    if (!this.#converging || !link.writeThrough || link.map.dirtyChunks > 0) return;
    this.#reason = undefined;
    this.#completeSinceMs = this.#options.clock.monotonicMs();
    this.#to("all-clean");
    // Write-through was entered before the first round had ended.
    if (this.#rounds === 0 && ++this.#rounds > 0) this.#tellSynced();
    this.#readySinceMs = this.#options.clock.monotonicMs();
    if (!this.#keepsReady) return;
    this.#options.emit("mirror.in-step", "info", "Every acknowledged write is on both stores");
  }

  get #mayConverge(): boolean {
    return this.#wantReady && this.#options.clock.monotonicMs() >= this.#readyNotBeforeMs;
  }

  /** The wait for the next round, cut short where write-through is to be reached again before. */
  #untilNextMs(intervalMs: number): number {
    if (!this.#wantReady) return intervalMs;
    return Math.min(intervalMs, this.#readyNotBeforeMs - this.#options.clock.monotonicMs());
  }

  /** Each time that lock-step did not last costs the application some waiting: ever more rarely, then. */
  #putOff() {
    const now = this.#options.clock.monotonicMs();
    const lasted = now - this.#readySinceMs > LASTED_MS;
    this.#pauseMs = lasted ? READY_PAUSE_MS_MIN : Math.min(2 * this.#pauseMs, READY_PAUSE_MS_MAX);
    this.#readyNotBeforeMs = now + this.#pauseMs;
  }

  get #converging(): boolean {
    return this.#state === "converging" && this.#wantReady && !this.#ended;
  }

  /** While write-through lasts: nobody waits for the target longer than the limit. */
  async #watchWriteThrough() {
    const { volume, link, turns, record } = this.#options;
    const limitMs = record.terms.write_through_timeout_ms;
    if (this.#watching) return;
    this.#watching = true;
    while (link.writeThrough && volume.link === link) {
      await turns.sleep(Math.max(5, limitMs / 8));
      if (link.committing || volume.mirrorWaitMs() <= limitMs) continue;
      volume.dropWriteThrough(`the target did not answer within ${limitMs} ms`);
    }
    this.#watching = false;
  }

  #fellBack(reason: string) {
    this.#reason = reason;
    if (this.#keepsReady) this.#putOff();
    if (next(this.#state, "fell-back")) this.#to("fell-back", reason);
    this.#options.emit("mirror.fell-back", "warning", `Write-through ended: ${reason}`, {
      dirty_bytes: this.#options.link.map.dirtyBytes,
    });
  }

  #reportMismatch(range: Range, strikes: number) {
    this.#options.emit(
      "mirror.digest-mismatch",
      "error",
      `The target persisted other bytes than were sent, ${range.length} bytes at ${range.at}`,
      { at: range.at, length: range.length, strikes },
    );
  }

  #reportUnequal({ at, length }: Range, tell: boolean) {
    this.#signal();
    if (!tell) return;
    const message = `Both sides of the mirror differ from byte ${at} on; it is copied again`;
    this.#options.emit("mirror.verify-mismatch", "error", message, { at, length });
  }

  #verifyWaitsFor(): string | undefined {
    if (this.#ended) return "the mirror has ended";
    if (!this.#options.link.target.connected) return "the target is not reachable";
    switch (this.#state) {
      case "requested":
      case "syncing":
        return "the first round is under way";
      case "converging":
      case "switching":
        return "the mirror is getting ready to be switched to";
      case "failed":
        return `the mirror has failed (${this.#reason ?? "no reason given"})`;
    }
    return undefined;
  }

  /** @param share of the write-through time limit. */
  async #limit<T>(work: Promise<T>, share = 1): Promise<T> {
    const { turns, record } = this.#options;
    const late = turns.sleep(record.terms.write_through_timeout_ms * share).then(() => {
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
    this.#signal();
  }

  #signal() {
    this.#change.resolve();
    this.#change = this.#options.turns.deferred<void>();
  }

  async #wait(ms: number) {
    await Promise.race([this.#change.promise, this.#options.turns.sleep(ms)]);
  }
}
