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
import {
  atEpoch,
  type BackupMode,
  type BackupRest,
  type CutoverReport,
  epochBeyond,
  epochOf,
  type Manifest,
  type ManifestFile,
  type MirrorLink,
  type MirrorRecord,
  type Placement,
  type Volume,
} from "../volume/mod.ts";
import type { Mirror } from "./mirror.ts";
import type { TargetControl } from "./target_control.ts";
import type { CutoverWindow } from "./window.ts";

const COMMIT_RETRY_FIRST_MS = 50, COMMIT_RETRY_MAX_MS = 1000;

/** What becomes of the source. */
export interface FormerSource {
  readonly mode: BackupMode;
  /** The mirror that leads back, its link prepared at the volume; null: it is not followed. */
  readonly mirror: MirrorRecord | null;
  /** Why it is not followed; `at` is the commit's time. */
  readonly rest: Omit<BackupRest, "at"> | null;
}

export interface CutoverOptions {
  readonly volume: Volume;
  readonly mirror: Mirror;
  readonly manifest: ManifestFile;
  readonly control: TargetControl;
  readonly turns: Turns;
  readonly clock: Clock;
  /** A name for this cutover's claim on the target, unless an earlier attempt has left one. */
  readonly claimant: string;
  /** Opened before the mirror was made ready for this cutover. */
  readonly window: CutoverWindow;
  readonly onRetry: (reason: string) => void;
  readonly aftermath: FormerSource;
  /** Called in the very step in which the target has become the active backend, with the former one. */
  readonly onCommitted: (former: Backend) => void;
  /** The volume is being closed: nothing is written any more, so either outcome on the disk is right. */
  readonly isClosing: () => boolean;
}

/**
 * With a mirror that leads back the volume keeps its size: it grows when the backup has grown too.
 * @returns the former source's backend and the report as far as it is known at the commit.
 */
export async function cutOver(
  options: CutoverOptions,
): Promise<{ former: Backend; report: CutoverReport }> {
  const { volume, mirror, manifest, control, aftermath } = options;
  const epoch = nextEpoch(manifest.current, mirror.record);
  const target = atEpoch(mirror.record.target, epoch);
  // One attempt may have been promoted and not committed: then the epoch is that one's alone.
  const claimant = manifest.current.mirror?.claimant ?? options.claimant;
  const sizeBefore = volume.sizeBytes;
  const sizeAfter = aftermath.mirror === null ? target.size_bytes : sizeBefore;
  try {
    // When it is not, nobody waits for it to become so any more either.
    requireReady(mirror);
    mirror.cutoverBegins();
    await manifest.commit((now) => ({
      ...now,
      prepare: { epoch, to: target },
      // After this the store may refuse whoever names a lower one.
      mirror: now.mirror && { ...now.mirror, target, claimant },
    }));
    await requireUnbroken(mirror, volume).target.raiseEpoch(epoch);
    await control.promote(epoch, claimant);
    requireUnbroken(mirror, volume);
    // A target that lost its power since it was ready, and with it what nobody had flushed, need not have been
    // missed: its old connection says so only when it is used.
    await mirror.copier.flushTarget();
    const link = requireUnbroken(mirror, volume);
    link.target.setLossPolicy("hold");
    volume.beginCommit();
    const report: CutoverReport = {
      epoch,
      at: new Date(options.clock.nowMs()).toISOString(),
      io_errors: options.window.ioErrors,
      held_us_max: Math.round(volume.takeHeldMax()),
      latency_us: options.window.latency(),
      size_before_bytes: sizeBefore,
      size_after_bytes: target.size_bytes,
      copied_bytes: mirror.copier.copiedBytes,
      changed_bytes: link.changedBytes,
      digests_checked: mirror.checks.checked,
      digest_mismatches: mirror.checks.mismatched,
      unverified_bytes: link.unverifiedBytes,
    };
    await commit(options, { epoch, target, sizeAfter, report });
    const former = volume.finishCommit(sizeAfter);
    mirror.cutoverEnds(true);
    options.onCommitted(former);
    return { former, report };
  } catch (error) {
    volume.undoCommit();
    volume.link?.target.setLossPolicy("fail");
    mirror.cutoverEnds(false);
    if (!mirror.isReady) volume.dropWriteThrough(undefined);
    throw error;
  }
}

/** A followed backup's own epoch rises at each opening, and may be ahead of the volume's. */
function nextEpoch({ epoch, mirror }: Manifest, record: MirrorRecord): number {
  const { role, target } = mirror ?? record;
  if (role === "backup") return epochBeyond(target, epoch + 1);
  return Math.max(epoch + 1, epochOf(target) ?? 0);
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

/** In another state it fell back, and what it has reached since is not verified. */
function requireUnbroken(mirror: Mirror, { link }: Volume): MirrorLink {
  if (mirror.state === "switching" && link?.writeThrough && link.map.dirtyChunks === 0) return link;
  throw new PsmaError("state/not-ready", "Cannot switch: the mirror fell back meanwhile");
}

interface Commit {
  readonly epoch: number;
  readonly target: Placement;
  readonly sizeAfter: number;
  readonly report: CutoverReport;
}

/** Tries until the manifest says so on disk: an error leaves open which of the two it says. */
async function commit(
  { manifest, aftermath, ...options }: CutoverOptions,
  { epoch, target, sizeAfter, report }: Commit,
): Promise<void> {
  const change = (now: Manifest): Manifest => ({
    ...now,
    epoch,
    size_bytes: sizeAfter,
    active: target,
    // A frozen one is fenced afterwards, by this epoch: who has an older state is to find that it is over.
    backup: aftermath.mirror?.target ?? atEpoch(now.active, epoch),
    backup_mode: aftermath.mode,
    backup_rest: aftermath.rest && {
      at: report.at,
      claimant: options.claimant,
      ...aftermath.rest,
    },
    mirror: aftermath.mirror,
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
