/**
 * A volume's backup, the former source after a switch. Frozen: left as it was. Followed: the target of a
 * mirror in reverse, behind (`async`) or in lock-step (`sync`). In lock-step it takes the volume over when the
 * active store is lost for too long, because then it has every acknowledged write; otherwise it never does.
 */
import { formatSize, PsmaError, toPsmaError } from "../core/mod.ts";
import { COUNTER } from "../codec/mod.ts";
import type { Mirror } from "../mirror/mod.ts";
import { atEpoch, epochBeyond } from "../volume/mod.ts";
import type { BackupClaim } from "./backup_claim.ts";
import type { BackupStatus, MirrorStatus, VerifyStatus } from "./messages.ts";
import type { MirrorControl } from "./mirror_control.ts";
import type { Switching } from "./switching.ts";
import { newClaimant } from "./volume_claim.ts";
import type { VolumeParts } from "./volume_opening.ts";

/** How long a backup may take to be brought to one moment of the volume, before it is left behind. */
const FREEZE_WITHIN_MS = 10_000;
const LOOK_EVERY_MS = 100, TAKE_OVER_AGAIN_MS = 1000;

/** Work on the volume's shape, one at a time. */
export type Exclusively = <T>(what: string, work: () => Promise<T>) => Promise<T>;

export class BackupControl {
  /** Bytes that had been written when the backup was frozen, or when the volume was opened. */
  #writtenBefore = 0;
  #ended = false;

  constructor(
    readonly parts: VolumeParts,
    readonly mirrors: MirrorControl,
    readonly switching: Switching,
    readonly exclusively: Exclusively,
    readonly claim: BackupClaim,
  ) {}

  get #followed(): Mirror | undefined {
    return this.mirrors.exists && this.mirrors.mirror.record.role === "backup"
      ? this.mirrors.mirror
      : undefined;
  }

  /** @param mirror the volume's, whatever it leads to. @param verify of the backup. */
  status(mirror: MirrorStatus | null, verify: VerifyStatus | null): BackupStatus | null {
    const { backup, backup_mode, backup_rest, last_cutover } = this.parts.manifest.current;
    if (!backup) return null;
    const followed = this.#followed, { takenOver } = this.claim;
    const kept = followed === undefined ? "frozen" : followed.isReady ? "in-step" : "behind";
    const complete = followed ? followed.isReady : backup_rest?.complete ?? true;
    return {
      mode: backup_mode,
      state: takenOver === undefined ? kept : "taken-over",
      frozen_at: followed ? null : backup_rest?.at ?? last_cutover?.at ?? null,
      reason: takenOver ?? backup_rest?.reason ?? null,
      complete: complete && takenOver === undefined,
      written_bytes: followed ? 0 : this.#writtenBytes - this.#writtenBefore,
      verify: followed ? null : verify,
      mirror: followed ? mirror : null,
    };
  }

  get #writtenBytes(): number {
    return this.parts.volume.counters.values[COUNTER.writeBytes] as number;
  }

  /** From now on the backup lacks what is written. */
  beginsToDiffer(): void {
    this.#writtenBefore = this.#writtenBytes;
  }

  /**
   * Ends the following, if there is any: first the backup is brought to what the volume is at one moment.
   * @param reason for the record and the event.
   */
  async freeze(reason: string): Promise<void> {
    const followed = this.#followed;
    if (!followed) return;
    const { context, directory, emit, manifest, volume } = this.parts;
    const fault = await this.#bringToOneMoment(followed);
    const at = new Date(context.clock.nowMs()).toISOString();
    const complete = fault === undefined;
    const lacking_bytes = volume.link?.map.dirtyBytes ?? 0;
    const drawn = newClaimant(context.rng);
    await manifest.commit((now) => ({
      ...now,
      // A way back that failed may have raised the mirror's epoch above the backup's own.
      backup: now.backup &&
        atEpoch(now.backup, epochBeyond(now.mirror?.target ?? now.backup, now.epoch)),
      backup_mode: "frozen",
      // A claim under way may have reached the store by this very epoch.
      backup_rest: { at, reason, complete, claimant: now.mirror?.claimant ?? drawn },
      mirror: null,
      prepare: null,
    }));
    this.beginsToDiffer();
    const backup = volume.link?.target;
    await this.mirrors.drop();
    await backup?.close();
    await directory.removeMap(followed.record.id);
    const left = `its copy was left in the midst and is no way back: ${fault?.message ?? ""}`;
    emit(
      "backup.frozen",
      complete ? "warning" : "error",
      `The backup of ${volume.name} is followed no more: ${reason}${complete ? "" : `; ${left}`}`,
      { complete, lacking_bytes: complete ? 0 : lacking_bytes },
    );
  }

  /**
   * From its end on nothing is copied to the backup, which holds one moment of the volume, durably.
   * @returns why it could not be brought there.
   */
  async #bringToOneMoment(followed: Mirror): Promise<PsmaError | undefined> {
    try {
      await followed.converge(FREEZE_WITHIN_MS);
      const inStep = followed.isReady;
      followed.pause(!inStep);
      if (inStep) return void await followed.copier.flushTarget();
      return new PsmaError("state/not-ready", "it fell behind once more at the last moment");
    } catch (error) {
      followed.pause();
      return toPsmaError(error);
    }
  }

  /** Takes over growth that happened at the backup's store. @throws {PsmaError} state/backup, state/cannot-grow, store/unreachable */
  async grow(sizeBytes: number): Promise<void> {
    const { manifest, volume } = this.parts;
    const followed = this.#followed, target = volume.link?.target;
    if (!followed || !target) {
      throw new PsmaError(
        "state/backup",
        `Cannot grow ${volume.name}'s backup: it is not followed`,
      );
    }
    await target.grow(sizeBytes);
    await manifest.commit((now) => ({
      ...now,
      backup: now.backup && { ...now.backup, size_bytes: sizeBytes },
      mirror: now.mirror && {
        ...now.mirror,
        target: { ...now.mirror.target, size_bytes: sizeBytes },
      },
    }));
  }

  /** @throws {PsmaError} state/backup while a followed backup is too small for a volume of this size. */
  needRoom(sizeBytes: number): void {
    const { volume } = this.parts;
    const has = volume.link?.target.sizeBytes ?? 0;
    if (!this.#followed || has >= sizeBytes) return;
    throw new PsmaError(
      "state/backup",
      `Cannot grow ${volume.name}: its backup, which is followed, has ${formatSize(has)}`,
      { hint: "Grow the backup first, or freeze it." },
    );
  }

  /** Forgets the backup. @throws {PsmaError} state/no-backup */
  async retire(): Promise<void> {
    const { directory, manifest, volume } = this.parts;
    if (!manifest.current.backup) {
      throw new PsmaError("state/no-backup", `Cannot retire: ${volume.name} has no backup`);
    }
    const followed = this.#followed, target = followed && volume.link?.target;
    await manifest.commit((now) => ({
      ...now,
      backup: null,
      backup_rest: null,
      mirror: followed ? null : now.mirror,
    }));
    if (!followed) return;
    await this.mirrors.drop();
    await target?.close();
    await directory.removeMap(followed.record.id);
  }

  /** Watches over the active store until `end`. */
  async watch(): Promise<void> {
    const { context: { clock, reactor }, volume } = this.parts;
    let lostSinceMs = Infinity, told = false;
    while (!this.#ended) {
      await reactor.sleep(LOOK_EVERY_MS);
      this.claim.look(this.switching.isFinishing);
      const afterMs = this.#followed?.record.failover_after_ms;
      // A store that has fenced us out is not lost: another has taken the volume over.
      if (volume.active.connected || volume.active.fenced || afterMs === undefined) {
        lostSinceMs = Infinity;
        told = false;
        continue;
      }
      lostSinceMs = Math.min(lostSinceMs, clock.monotonicMs());
      if (clock.monotonicMs() - lostSinceMs < afterMs) continue;
      const fault = await this.#takeOver();
      if (fault === undefined || this.#ended) continue;
      if (!told) this.#tellLost(fault);
      told = true;
      await reactor.sleep(TAKE_OVER_AGAIN_MS);
    }
  }

  /** @returns why not; undefined when it is done. */
  async #takeOver(): Promise<string | undefined> {
    const { emit, manifest, volume } = this.parts;
    const lost = manifest.current.active;
    try {
      await this.exclusively("take-over by the backup", async () => {
        const fault = this.#whyNotNow();
        if (fault !== undefined) throw new PsmaError("state/not-ready", fault);
        const { epoch } = await this.switching.takeOver();
        emit(
          "backup.took-over",
          "error",
          `${volume.name} goes on on its backup: store ${lost.store} is lost. No acknowledged ` +
            "write is missing, and no second copy protects it until that store is back and in step",
          { epoch, lost_store: lost.store },
        );
      });
      return undefined;
    } catch (error) {
      return toPsmaError(error).message;
    }
  }

  #whyNotNow(): string | undefined {
    const { volume } = this.parts, { link } = volume;
    if (volume.active.connected || volume.active.fenced) return "it is back";
    if (!link?.target.connected) return "the backup is not reachable either";
    if (this.#followed?.isReady) return undefined;
    return `the backup does not have every acknowledged write (${
      formatSize(link.map.dirtyBytes)
    } may be missing)`;
  }

  #tellLost(fault: string) {
    const { emit, manifest, volume } = this.parts;
    const { active } = manifest.current;
    emit(
      "backup.not-taken-over",
      "error",
      `Store ${active.store} is lost, and ${volume.name} cannot go on on its backup: ${fault}. ` +
        "Requests wait until the store is back",
      { dirty_bytes: volume.link?.map.dirtyBytes ?? 0 },
    );
  }

  end(): void {
    this.#ended = true;
    this.claim.end();
  }
}
