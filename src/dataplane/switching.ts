/**
 * A volume's move to its mirror's target, as one command: converge, cut over, and afterwards, on its own,
 * measure what the application noticed and give up what the mirror and the former source held. The way to
 * a larger place, back to the backup, and away from a store that is lost are the same.
 */
import type { Backend } from "../backend/mod.ts";
import { cutOver, CutoverWindow, type Mirror } from "../mirror/mod.ts";
import type { CutoverReport, MirrorLink } from "../volume/mod.ts";
import type { LatencyBaseline } from "./latency_baseline.ts";
import type { BackupOrder } from "./messages.ts";
import type { MirrorControl } from "./mirror_control.ts";
import { type Aftermath, discardAftermath, prepareAftermath, prepareReverse } from "./reverse.ts";
import { targetControl } from "./target_control.ts";
import { newClaimant } from "./volume_claim.ts";
import type { VolumeParts } from "./volume_opening.ts";

const WINDOW_AFTER_COMMIT_MS = 1000;
/** Then a former source that does not answer is cut off: nobody waits for it. */
const FORMER_ANSWERS_WITHIN_MS = 1000;

/** What stands after a commit, until the window has run out. */
interface Committed {
  readonly mirror: Mirror;
  readonly link: MirrorLink | undefined;
  /** Where it is not followed. */
  readonly former: Backend | undefined;
  readonly report: CutoverReport;
  readonly window: CutoverWindow;
}

export class Switching {
  #finishing: Promise<void> = Promise.resolve();
  #isFinishing = false;
  #closing = false;

  constructor(
    readonly parts: VolumeParts,
    readonly mirrors: MirrorControl,
    readonly baseline: LatencyBaseline,
  ) {}

  /**
   * @param backup what becomes of the present source; frozen when it is left out.
   * @throws {PsmaError} state/no-mirror, timeout/converge, state/not-ready, state/mirror, store/...
   */
  async switchOver(timeoutMs: number, backup?: BackupOrder): Promise<CutoverReport> {
    const { mirror } = this.mirrors;
    this.baseline.takeBefore(mirror);
    const window = this.#openWindow();
    await mirror.converge(timeoutMs);
    return await this.#cutOver(window, await prepareAftermath(this.parts, backup));
  }

  /**
   * The active store is lost and the mirror, a backup in lock-step, has every acknowledged write: goes on
   * there. When the lost store is back, its copy is compared as a whole and becomes the backup.
   * @throws {PsmaError} state/not-ready, store/...; the mirror is then as it was.
   */
  async takeOver(): Promise<CutoverReport> {
    const order = { ...this.mirrors.mirror.record, mode: "sync", isLost: true } as const;
    return await this.#cutOver(this.#openWindow(), await prepareReverse(this.parts, order));
  }

  #openWindow(): CutoverWindow {
    const { volume } = this.parts;
    volume.takeHeldMax();
    return new CutoverWindow(volume.counters, this.baseline.p99);
  }

  async #cutOver(window: CutoverWindow, aftermath: Aftermath): Promise<CutoverReport> {
    const { context, emit, manifest, volume } = this.parts;
    const mirror = this.mirrors.mirror, link = volume.link;
    const { former, report } = await cutOver({
      volume,
      mirror,
      manifest,
      control: targetControl(this.parts, mirror.record.target),
      turns: context.reactor,
      clock: context.clock,
      claimant: newClaimant(context.rng),
      window,
      aftermath,
      onCommitted: (source) => {
        if (link) link.target.onLost = undefined;
        if (aftermath.mirror) return this.mirrors.follow(aftermath.mirror);
        this.mirrors.letGo();
        // Reads that still wait there are asked again of the new active backend.
        source.setLossPolicy("fail");
      },
      isClosing: () => this.#closing,
      onRetry: (reason) => emit("cutover.retry", "error", `The commit is tried again: ${reason}`),
    }).catch(async (error) => {
      // Closing, either manifest may be on the disk: the next to open it finds the map, or sweeps it away.
      await discardAftermath(this.parts, aftermath, this.#closing);
      throw error;
    });
    this.#tellCommitted(report);
    const left = aftermath.mirror ? undefined : former;
    this.#finishing = this.#finish({ mirror, link, former: left, report, window });
    this.#isFinishing = true;
    const over = () => {
      this.#isFinishing = false;
    };
    context.supervise("cutover", this.#finishing.finally(over));
    return report;
  }

  /** The former source may still be in use. */
  get isFinishing(): boolean {
    return this.#isFinishing;
  }

  /** A commit that the disk refuses is given up: see `CutoverOptions.isClosing`. */
  beginClose(): void {
    this.#closing = true;
  }

  /** Resolves when nothing of a cutover is left to do; a failure has been told. */
  async close(): Promise<void> {
    await this.#finishing.catch(() => {});
  }

  #tellCommitted({ epoch, size_before_bytes, size_after_bytes }: CutoverReport) {
    const { emit, volume } = this.parts;
    emit("cutover.committed", "info", `${volume.name} moved to ${volume.active.description}`, {
      epoch,
      size_before_bytes,
      size_after_bytes,
    });
  }

  async #finish({ mirror, link, former, report, window }: Committed) {
    const { context, directory, emit, manifest } = this.parts;
    await mirror.end();
    await context.reactor.sleep(WINDOW_AFTER_COMMIT_MS);
    const latency_us = window.latency(), io_errors = window.ioErrors;
    const last_cutover: CutoverReport = { ...report, io_errors, latency_us };
    // Another switch may have come within the window: its report stays.
    const measured = manifest.commit((now) =>
      now.last_cutover?.epoch === report.epoch ? { ...now, last_cutover } : now
    );
    // Whatever becomes of the report, nothing stays claimed.
    await measured.catch(() => {});
    await link?.close();
    if (former) {
      context.reactor.sleep(FORMER_ANSWERS_WITHIN_MS).then(() => former.abort());
      await former.close();
    }
    await directory.removeMap(mirror.record.id);
    await measured;
    emit("cutover.measured", "info", "The cutover's latencies are measured", {
      window_p99_us: latency_us.window_p99,
      window_max_us: latency_us.window_max,
      baseline_p99_us: latency_us.baseline_p99,
      io_errors,
    });
  }
}
