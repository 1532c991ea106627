/**
 * The cutover: from a ready mirror to the target as active backend, without holding any request.
 *
 * 1. manifest: prepare {to, epoch}      4. manifest: commit {active, epoch}
 * 2. the store fences lower epochs      5. the target is the active backend; the source is the backup
 * 3. reads come from the target; every write still goes to both sides
 *
 * A crash before 4 is durable recovers on the source, afterwards on the target; both hold every
 * acknowledged write at that moment. When the outcome of 4 is unknown (an error after the rename may or may
 * not be on disk), the commit is tried again, and both sides go on holding every write meanwhile.
 */
import { type Clock, PsmaError, toPsmaError, type Turns } from "../core/mod.ts";
import type { Backend } from "../backend/mod.ts";
import type { CutoverReport, Manifest, ManifestFile, Volume } from "../volume/mod.ts";
import type { Mirror, TargetControl } from "./mirror.ts";
import type { CutoverWindow } from "./window.ts";

const COMMIT_RETRY_FIRST_MS = 50, COMMIT_RETRY_MAX_MS = 1000;

export interface CutoverOptions {
  readonly volume: Volume;
  readonly mirror: Mirror;
  readonly manifest: ManifestFile;
  readonly control: TargetControl;
  readonly turns: Turns;
  readonly clock: Clock;
  /** Opened before the mirror was made ready for this cutover. */
  readonly window: CutoverWindow;
  readonly onRetry: (reason: string) => void;
  /** The volume is being closed: nothing is written any more, so either outcome on the disk is right. */
  readonly isClosing: () => boolean;
}

/** @returns the former source's backend and the report as far as it is known at the commit. */
export async function cutOver(
  options: CutoverOptions,
): Promise<{ former: Backend; report: CutoverReport }> {
  const { volume, mirror, manifest, control } = options;
  const target = mirror.record.target;
  const epoch = manifest.current.epoch + 1;
  const sizeBefore = volume.sizeBytes;
  requireReady(mirror);
  mirror.cutoverBegins();
  let begun = false;
  try {
    await manifest.commit((now) => ({ ...now, prepare: { epoch, to: target } }));
    await control.promote(epoch);
    // In another state it fell back, and what it has reached since is not verified.
    if (
      mirror.state !== "switching" || !volume.link?.writeThrough || volume.link.map.dirtyChunks > 0
    ) {
      throw new PsmaError("state/not-ready", "Cannot switch: the mirror fell back meanwhile");
    }
    volume.link.target.setLossPolicy("hold");
    volume.beginCommit();
    begun = true;
    const report: CutoverReport = {
      epoch,
      at: new Date(options.clock.nowMs()).toISOString(),
      io_errors: options.window.ioErrors,
      held_us_max: Math.round(volume.takeHeldMax()),
      latency_us: options.window.latency(),
      size_before_bytes: sizeBefore,
      size_after_bytes: target.size_bytes,
      copied_bytes: mirror.copier.copiedBytes,
      changed_bytes: volume.link.changedBytes,
      digests_checked: mirror.checks.checked,
      digest_mismatches: mirror.checks.mismatched,
      unverified_bytes: volume.link.unverifiedBytes,
    };
    await commit(options, epoch, report);
    const former = volume.finishCommit(target.size_bytes);
    mirror.cutoverEnds(true);
    return { former, report };
  } catch (error) {
    if (begun) volume.undoCommit();
    volume.link?.target.setLossPolicy("fail");
    mirror.cutoverEnds(false);
    volume.dropWriteThrough(undefined);
    throw error;
  }
}

function requireReady(mirror: Mirror): void {
  if (mirror.isReady) return;
  throw new PsmaError(
    "state/not-ready",
    `Cannot switch: the mirror is ${mirror.state}, not ready`,
    {
      hint: "Wait until it is ready, or let switch converge it.",
    },
  );
}

/** Tries until the manifest says so on disk: an error leaves open which of the two it says. */
async function commit(
  options: CutoverOptions,
  epoch: number,
  report: CutoverReport,
): Promise<void> {
  const { manifest, mirror } = options;
  const target = mirror.record.target;
  const change = (now: Manifest): Manifest => ({
    ...now,
    epoch,
    size_bytes: target.size_bytes,
    active: target,
    backup: now.active,
    mirror: null,
    prepare: null,
    last_cutover: report,
  });
  for (let waitMs = COMMIT_RETRY_FIRST_MS;; waitMs = Math.min(waitMs * 2, COMMIT_RETRY_MAX_MS)) {
    try {
      return await manifest.commit(change);
    } catch (error) {
      if (options.isClosing()) throw error;
      options.onRetry(toPsmaError(error).message);
      await options.turns.sleep(waitMs);
    }
  }
}
