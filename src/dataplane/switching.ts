/**
 * A volume's move to its mirror's target, as one command: converge, cut over, and afterwards, on its own,
 * measure what the application noticed and give up what the mirror and the former source held.
 */
import type { Backend } from "../backend/mod.ts";
import { cutOver, CutoverWindow, type Mirror } from "../mirror/mod.ts";
import type { CutoverReport, MirrorLink } from "../volume/mod.ts";
import type { LatencyBaseline } from "./latency_baseline.ts";
import type { MirrorControl } from "./mirror_control.ts";
import { targetControl } from "./target_control.ts";
import type { VolumeParts } from "./volume_opening.ts";

const WINDOW_AFTER_COMMIT_MS = 1000;
/** Then a former source that does not answer is cut off: nobody waits for it. */
const FORMER_ANSWERS_WITHIN_MS = 1000;

/** What stands after a commit, until the window has run out. */
interface Committed {
  readonly mirror: Mirror;
  readonly link: MirrorLink | undefined;
  readonly former: Backend;
  readonly report: CutoverReport;
  readonly window: CutoverWindow;
}

export class Switching {
  #finishing: Promise<void> = Promise.resolve();
  #closing = false;

  constructor(
    readonly parts: VolumeParts,
    readonly mirrors: MirrorControl,
    readonly baseline: LatencyBaseline,
  ) {}

  /** @throws {PsmaError} state/no-mirror, timeout/converge, state/not-ready, state/mirror, store/... */
  async switchOver(timeoutMs: number): Promise<CutoverReport> {
    const { context, emit, manifest, volume } = this.parts;
    const mirror = this.mirrors.mirror;
    this.baseline.takeBefore(mirror);
    const window = new CutoverWindow(volume.counters, this.baseline.p99);
    volume.takeHeldMax();
    await mirror.converge(timeoutMs);
    const link = volume.link;
    const { former, report } = await cutOver({
      volume,
      mirror,
      manifest,
      control: targetControl(this.parts, mirror.record.target),
      turns: context.reactor,
      clock: context.clock,
      window,
      isClosing: () => this.#closing,
      onRetry: (reason) => emit("cutover.retry", "error", `The commit is tried again: ${reason}`),
    });
    // Reads that still wait there are asked again of the new active backend.
    former.setLossPolicy("fail");
    this.mirrors.letGo();
    if (link) link.target.onLost = undefined;
    this.#tellCommitted(report);
    this.#finishing = this.#finish({ mirror, link, former, report, window });
    context.supervise("cutover", this.#finishing);
    return report;
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
    await manifest.commit((now) =>
      now.last_cutover?.epoch === report.epoch ? { ...now, last_cutover } : now
    );
    link?.close();
    directory.removeMap(mirror.record.id);
    context.reactor.sleep(FORMER_ANSWERS_WITHIN_MS).then(() => former.abort());
    await former.close();
    emit("cutover.measured", "info", "The cutover's latencies are measured", {
      window_p99_us: latency_us.window_p99,
      window_max_us: latency_us.window_max,
      baseline_p99_us: latency_us.baseline_p99,
      io_errors,
    });
  }
}
