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
import { PsmaError } from "../core/mod.ts";
import { atEpoch, type ManifestFile, namesEpoch } from "../volume/mod.ts";
import type { DataPlaneContext } from "./context.ts";

const CLAIMANT_BYTES = 16;

/**
 * @returns once nobody else writes there any more; the manifest then names the place with the new epoch.
 * @throws {PsmaError} fenced/claimed when another agent holds the volume; store/unreachable, sys/...
 */
export async function claimActive(
  manifest: ManifestFile,
  { ask, rng }: Pick<DataPlaneContext, "ask" | "rng">,
): Promise<void> {
  const { active, prepare } = manifest.current;
  if (active.backend.type !== "nbd" || !namesEpoch(active.backend.uri)) return;
  if (prepare?.claimant !== undefined) await settle(manifest, prepare.epoch, prepare.claimant, ask);
  const epoch = manifest.current.epoch + 1, claimant = rng.hex(CLAIMANT_BYTES);
  await manifest.commit((now) => ({
    ...now,
    prepare: { epoch, to: atEpoch(now.active, epoch), claimant },
  }));
  await settle(manifest, epoch, claimant, ask);
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
    if (!(error instanceof PsmaError) || error.code !== "fenced/stale-epoch") throw error;
    // Kept, it would let the next opening ask for an epoch beyond the other's.
    await manifest.commit((now) => ({ ...now, prepare: null }));
    throw anothers(manifest.current.name, manifest.current.epoch, error);
  }
  await manifest.commit((now) => ({ ...now, epoch, active: target, prepare: null }));
}

function anothers(name: string, epoch: number, cause: PsmaError): PsmaError {
  return new PsmaError(
    "fenced/claimed",
    `Cannot open volume ${name}: another agent holds it, and split brain is possible: ` +
      `here its epoch is ${epoch}; its store says: ${cause.message}`,
    {
      hint:
        "Go on with the agent that holds it, and remove the volume from this one's configuration. " +
        "After a restore of the state directory: restore the latest one.",
      cause,
    },
  );
}
