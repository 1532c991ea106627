/**
 * Back to a backup that lacks what was written since: for a volume that is not open, so that nobody's file
 * system changes underneath. The manifest is replaced in one step; a kill before it leaves the volume as it
 * was, one after it, as it is to be.
 */
import { PsmaError } from "../core/mod.ts";
import { atEpoch, epochBeyond } from "../volume/mod.ts";
import type { DataPlaneContext } from "./context.ts";
import { newClaimant } from "./volume_claim.ts";
import { VolumeDirectory } from "./volume_directory.ts";

/**
 * The present active backend becomes the backup, frozen, with all that is discarded: the same again leads
 * back to it. @throws {PsmaError} not-found/manifest, state/no-backup, state/backup, state/in-use, store/..., sys/...
 */
export async function restoreBackup(
  path: string,
  { ask, clock, files, rng }: DataPlaneContext,
): Promise<{ epoch: number }> {
  const directory = new VolumeDirectory(path, files);
  using _claim = await directory.claim(path);
  const manifest = await directory.loadManifest();
  if (!manifest) {
    throw new PsmaError("not-found/manifest", `Cannot go back: ${path} has no manifest`);
  }
  const { backup, backup_rest, name, epoch: before, mirror, prepare } = manifest.current;
  if (!backup) throw new PsmaError("state/no-backup", `Cannot go back: ${name} has no backup`);
  if (mirror || backup_rest?.complete === false) {
    throw new PsmaError(
      "state/backup",
      `Cannot go back to the backup of ${name}: ${
        mirror ? "it is mirrored" : "its copy was left in the midst"
      }`,
    );
  }
  const epoch = epochBeyond(backup, before + 1), target = atEpoch(backup, epoch);
  // A kill may have come between the store's step and the commit.
  const claimant = prepare?.epoch === epoch && prepare.claimant || newClaimant(rng);
  await manifest.commit((now) => ({ ...now, prepare: { epoch, to: target, claimant } }));
  await ask("promote", { target, epoch, claimant });
  await manifest.commit((now) => ({
    ...now,
    epoch,
    size_bytes: target.size_bytes,
    active: target,
    backup: atEpoch(now.active, epoch),
    backup_mode: "frozen",
    backup_rest: {
      at: new Date(clock.nowMs()).toISOString(),
      reason: "the volume went back to its former place without the changes made here",
      complete: true,
      claimant,
    },
    prepare: null,
  }));
  await manifest.close();
  return { epoch };
}
