/** The verifies of a volume: of its mirror and of its frozen backup, one at a time. */
import { BackupScrub } from "./backup_scrub.ts";
import type { StartVerify, VerifyStatus } from "./messages.ts";
import type { MirrorControl } from "./mirror_control.ts";
import { busy, noVerify, Verification, type VerifySubject } from "./verification.ts";
import type { VolumeParts } from "./volume_opening.ts";

type Side = StartVerify["side"];

export class Verifications {
  readonly #of: Readonly<Record<Side, Verification>>;

  constructor(readonly parts: VolumeParts, mirrors: MirrorControl) {
    this.#of = {
      mirror: new Verification(parts, mirrorSubject(parts, mirrors)),
      backup: new Verification(parts, new BackupScrub(parts)),
    };
  }

  /** Goes on with what was running. A backup that is away now is verified when it is asked for again. */
  async recover(): Promise<void> {
    await this.#of.mirror.recover();
    this.parts.context.supervise("the verify of a backup", this.#of.backup.recover());
  }

  /** @throws {PsmaError} state/verify, state/no-mirror, state/no-backup, store/unreachable, sys/... */
  async begin(start: StartVerify): Promise<VerifyStatus> {
    const other = this.#of[start.side === "mirror" ? "backup" : "mirror"];
    if (other.isRunning) throw busy(this.parts.volume.name);
    return await this.#of[start.side].begin(start);
  }

  /** @throws {PsmaError} state/no-verify */
  async stop(): Promise<VerifyStatus> {
    const running = Object.values(this.#of).find((one) => one.isRunning);
    if (running) return await running.stop();
    throw noVerify(this.parts.volume.name);
  }

  status(side: Side): VerifyStatus | null {
    return this.#of[side].status();
  }

  statusOfThis(side: Side): VerifyStatus | null {
    return this.#of[side].statusOfThis();
  }

  /** The backup is about to go, or to be written: nobody reads it any more. */
  async leaveBackup(): Promise<void> {
    await this.#of.backup.close();
  }

  async close(): Promise<void> {
    await this.#of.mirror.close();
    await this.#of.backup.close();
  }
}

function mirrorSubject(parts: VolumeParts, mirrors: MirrorControl): VerifySubject {
  return {
    side: "mirror",
    wouldDiffer: "The mirror",
    of: () => mirrors.exists ? mirrors.mirror.record.id : undefined,
    get totalBytes() {
      return parts.volume.sizeBytes;
    },
    need: () => void mirrors.mirror,
    start: (options) => Promise.resolve(mirrors.mirror.verification.start(options)),
    close: () => Promise.resolve(),
    abort: () => {},
  };
}
