/**
 * Claims on a volume's backup at a store that fences, so that no agent with an older state goes on there.
 *
 * Frozen, it is fenced once the switch is over, by the switch's epoch. Followed, each opening raises its epoch
 * by one. Where another agent was first, both may have been written since: a split brain, which is told and
 * left as it is, for a person to decide.
 */
import type { Backend } from "../backend/mod.ts";
import { toPsmaError } from "../core/mod.ts";
import {
  atEpoch,
  epochOf,
  type Manifest,
  type MirrorRecord,
  type Placement,
} from "../volume/mod.ts";
import { isAnothers, newClaimant } from "./volume_claim.ts";
import type { VolumeParts } from "./volume_opening.ts";

/** A followed backup is waited for no longer than this; its claim is then made in the background. */
const FOLLOW_WITHIN_MS = 3000;
const AGAIN_MS = 2000;
/** How often it is made sure that a frozen backup is still ours. */
const LOOK_EVERY_MS = 60_000;

export class BackupClaim {
  #takenOver: string | undefined;
  #lookAtMs = -Infinity;
  /** Of which backup it was looked at last. */
  #lookedAt: string | undefined;
  #isLooking = false;
  #isEnded = false;
  #following: Promise<void> | undefined;

  constructor(readonly parts: VolumeParts) {}

  /** A sentence, where another agent has the backup. */
  get takenOver(): string | undefined {
    return this.#takenOver;
  }

  /** Claims a followed backup that is opened. Never rejects: without its store it is done later. */
  async follow({ id }: MirrorRecord, backend: Backend): Promise<void> {
    const { context } = this.parts;
    if (this.#following === undefined) {
      const claim = this.#claimFollowed(id, backend).finally(() => {
        this.#following = undefined;
      });
      this.#following = claim;
      context.supervise("claiming a backup", claim);
    }
    const late = context.reactor.sleep(FOLLOW_WITHIN_MS);
    await Promise.race([this.#following, late]).catch(() => {});
  }

  async #claimFollowed(id: string, backend: Backend) {
    const { context, manifest } = this.parts, { mirror } = manifest.current;
    const before = mirror?.id === id ? epochOf(mirror.target) : undefined;
    if (mirror === null || before === undefined) return;
    const epoch = before + 1, target = atEpoch(mirror.target, epoch);
    const claimant = mirror.claimant ?? newClaimant(context.rng);
    // A cutover back claims it too, by a higher epoch, and may be noting that just now.
    const isStill = (now: MirrorRecord | null): now is MirrorRecord =>
      now?.id === id && epochOf(now.target) === before;
    const isOver = () => this.#isEnded || !isStill(manifest.current.mirror);
    const note = (now: Manifest) =>
      isStill(now.mirror) ? { ...now, mirror: { ...now.mirror, claimant } } : now;
    const settle = (now: Manifest) => {
      if (!isStill(now.mirror)) return now;
      const { claimant: _, ...rest } = now.mirror;
      const claimed = { ...rest, target: atEpoch(rest.target, epoch) };
      return { ...now, mirror: claimed, backup: now.backup && atEpoch(now.backup, epoch) };
    };
    while (!isOver()) {
      try {
        await manifest.commit(note);
        await context.ask("promote", { target, epoch, claimant });
        if (isOver()) return;
        await manifest.commit(settle);
        // It may be away: then its next connection names the epoch. Our own claim may have shut it out meanwhile.
        await backend.raiseEpoch(epoch).catch(toPsmaError);
      } catch (error) {
        if (isAnothers(error) && !isOver()) return this.#tell(target, error.message);
        // The store is away, or our own disk fails: under its name the claim may be made any number of times.
        await context.reactor.sleep(AGAIN_MS);
      }
    }
  }

  /** Called again and again. @param isInUse a switch may still read from the former source. */
  look(isInUse: boolean): void {
    const { context, manifest, volume } = this.parts;
    const { backup, backup_rest } = manifest.current;
    const role = manifest.current.mirror?.role;
    const isClaimed = role === "backup" && this.#following === undefined;
    if (backup && isClaimed && volume.link?.target.fenced) {
      return this.#tell(backup, "it refuses our epoch");
    }
    if (!backup || role === "backup") {
      this.#lookedAt = undefined;
      if (!backup) this.#takenOver = undefined;
      return;
    }
    const claimant = backup_rest?.claimant, epoch = epochOf(backup);
    if (isInUse || this.#isLooking || claimant === undefined || epoch === undefined) return;
    const which = `${backup.store}/${backup.store_volume}@${epoch}`;
    const isDue = context.clock.monotonicMs() >= this.#lookAtMs;
    if (which === this.#lookedAt && !isDue) return;
    this.#isLooking = true;
    context.supervise("claiming a backup", this.#claimFrozen(backup, epoch, claimant, which));
  }

  async #claimFrozen(backup: Placement, epoch: number, claimant: string, which: string) {
    const { ask, clock } = this.parts.context;
    let pauseMs = LOOK_EVERY_MS;
    try {
      await ask("promote", { target: backup, epoch, claimant });
      this.#takenOver = undefined;
    } catch (error) {
      if (isAnothers(error)) this.#tell(backup, error.message);
      else pauseMs = AGAIN_MS;
    }
    this.#lookedAt = which;
    this.#lookAtMs = clock.monotonicMs() + pauseMs;
    this.#isLooking = false;
  }

  /** The volume is closed: what was not claimed is, at the next opening, under the same name. */
  end(): void {
    this.#isEnded = true;
  }

  /** Once, while it lasts. */
  #tell({ store }: Placement, why: string) {
    if (this.#takenOver !== undefined) return;
    const { emit, manifest, volume: { name } } = this.parts;
    this.#takenOver =
      `split brain is possible: another agent has taken over the backup at ${store}, ` +
      `and both may have been written since (${why})`;
    emit(
      "backup.split-brain",
      "error",
      `${name}: ${this.#takenOver}. Nothing is copied there any more and nothing is thrown away: ` +
        "decide which agent goes on, and stop the other one",
      { store, epoch: manifest.current.epoch },
    );
  }
}
