/**
 * The claim on a volume's bytes at a store that fences: made at each opening, before anything is read or written.
 *
 * The manifest remembers the place's epoch; a claim raises it by one, at the store under a name that is drawn
 * for it. So of two agents with one manifest (a copied state directory, a restored one) only the first to ask
 * gets an epoch: it holds the volume, and the other is cut off there and refused here, at this opening and at
 * every later one, because its epoch stays behind.
 *
 * Order: `prepare`, the store, `commit`. A kill in between leaves a claim that may or may not have been made; it
 * is asked for again first, under its own name, and then a new one follows.
 * Not promised: anything for a server that knows no epochs.
 */
import { PsmaError, type Rng } from "../core/mod.ts";
import { atEpoch, epochOf, type ManifestFile, type Placement } from "../volume/mod.ts";
import type { DataPlaneContext } from "./context.ts";
import { VolumeDirectory } from "./volume_directory.ts";

const CLAIMANT_BYTES = 16;

/** A name under which one claim is made, and asked for again after a kill. */
export function newClaimant(rng: Rng): string {
  return rng.hex(CLAIMANT_BYTES);
}

/**
 * @returns once nobody else writes there any more; the manifest then names the place with the new epoch.
 * @throws {PsmaError} fenced/claimed when another agent holds the volume; store/unreachable, sys/...
 */
export async function claimActive(
  manifest: ManifestFile,
  { ask, rng }: Pick<DataPlaneContext, "ask" | "rng">,
): Promise<void> {
  await keepForBackup(manifest);
  const { active, prepare } = manifest.current;
  if (!isFenced(active)) return;
  if (prepare?.claimant !== undefined) await settle(manifest, prepare.epoch, prepare.claimant, ask);
  const epoch = manifest.current.epoch + 1, claimant = newClaimant(rng);
  await manifest.commit((now) => ({
    ...now,
    prepare: { epoch, to: atEpoch(now.active, epoch), claimant },
  }));
  await settle(manifest, epoch, claimant, ask);
}

/**
 * An operator's order: this agent's state goes on with the volume although another has taken it over. What the
 * other wrote there stays; the next opening claims the epoch after its own, which cuts it off. What the mirror
 * or a followed backup lacks is not known any more: everything is compared.
 * @throws {PsmaError} not-found/manifest, state/not-fenced, state/in-use, store/..., sys/...
 */
export async function claimBack(
  path: string,
  { ask, files }: DataPlaneContext,
): Promise<{ epoch: number }> {
  const directory = new VolumeDirectory(path, files);
  using _claim = await directory.claim(path);
  const manifest = await directory.loadManifest();
  if (!manifest) {
    throw new PsmaError("not-found/manifest", `Cannot claim: ${path} has no manifest`);
  }
  try {
    const { active, epoch: before, mirror, name } = manifest.current;
    const epoch = isFenced(active) ? await ask("storeEpoch", { target: active }) : before;
    if (epoch <= before) {
      throw new PsmaError(
        "state/not-fenced",
        `Cannot claim ${name}: no other agent has taken it over`,
      );
    }
    // Before the commit: a map of before must never stand beside bytes that another has written.
    if (mirror) await directory.removeMap(mirror.id);
    await manifest.commit((now) => ({
      ...now,
      epoch,
      active: atEpoch(active, epoch),
      prepare: null,
    }));
    return { epoch };
  } finally {
    await manifest.close();
  }
}

function isFenced(place: Placement): boolean {
  return epochOf(place) !== undefined;
}

/** A way back was cut short: at the backup its claim may have been made, and stays ours under its own name. */
async function keepForBackup(manifest: ManifestFile): Promise<void> {
  const { prepare, backup } = manifest.current;
  if (!prepare || !backup) return;
  const { epoch, claimant, to } = prepare;
  const isBack = to.store === backup.store && to.store_volume === backup.store_volume;
  if (claimant === undefined || !isBack) return;
  await manifest.commit((now) => ({
    ...now,
    backup: atEpoch(backup, epoch),
    backup_rest: now.backup_rest && { ...now.backup_rest, claimant },
    prepare: null,
  }));
}

/** Asks the store for a claim that is prepared, and commits it; one that is refused is forgotten. */
async function settle(
  manifest: ManifestFile,
  epoch: number,
  claimant: string,
  ask: DataPlaneContext["ask"],
): Promise<void> {
  const target = atEpoch(manifest.current.active, epoch);
  try {
    await ask("promote", { target, epoch, claimant });
  } catch (error) {
    if (!isAnothers(error)) throw error;
    // Kept, it would let the next opening ask for an epoch beyond the other's.
    await manifest.commit((now) => ({ ...now, prepare: null }));
    throw anothers(manifest.current.name, manifest.current.epoch, error);
  }
  await manifest.commit((now) => ({ ...now, epoch, active: target, prepare: null }));
}

/** The store has said that an epoch is somebody else's. */
export function isAnothers(error: unknown): error is PsmaError {
  return error instanceof PsmaError && error.code === "fenced/stale-epoch";
}

function anothers(name: string, epoch: number, cause: PsmaError): PsmaError {
  return new PsmaError(
    "fenced/claimed",
    `Cannot open volume ${name}: another agent holds it, and split brain is possible: ` +
      `here its epoch is ${epoch}; its store says: ${cause.message}`,
    {
      hint:
        "Go on with the agent that holds it, and remove the volume from this one's configuration. After a " +
        `restore of the state directory: restore the latest one. To cut the other off: psma volume claim ${name} --yes`,
      cause,
    },
  );
}
