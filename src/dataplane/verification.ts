/**
 * The verify of a volume as commands see it: begun, stopped, gone on with after a restart. At most one at a
 * time; how it stands is in a file of the volume's directory, which keeps its result when it has ended.
 */
import { PsmaError } from "../core/mod.ts";
import type { Verify } from "../mirror/mod.ts";
import type { VerifyRecord } from "../volume/mod.ts";
import type { StartVerify, VerifyStatus } from "./messages.ts";
import type { MirrorControl } from "./mirror_control.ts";
import type { VolumeParts } from "./volume_opening.ts";

const ENDED = "what it was a verify of is not there any more";

export class Verification {
  #verify: Verify | undefined;
  #last: VerifyRecord | undefined;

  constructor(readonly parts: VolumeParts, readonly mirrors: MirrorControl) {
    this.#last = parts.directory.loadVerify();
  }

  /** Goes on with the verify that was running when the volume was closed, if its mirror is still there. */
  recover(): void {
    const record = this.#last;
    if (record?.state === "running" && record.of === this.#mirrorId()) this.#run(record);
  }

  /**
   * Begins a verify; one of the same id goes on. @param start.resume from where a stopped one was.
   * @throws {PsmaError} state/verify while another runs, state/no-mirror, sys/...
   */
  async begin(start: StartVerify): Promise<VerifyStatus> {
    const { context, directory, volume } = this.parts;
    const now = this.#now();
    if (now?.state === "running") {
      if (now.id === start.id) return this.#statusOf(now);
      throw new PsmaError(
        "state/verify",
        `Cannot verify ${volume.name}: a verify is under way`,
        { hint: `psma mirror verify ${volume.name} --stop ends it.` },
      );
    }
    const { id: of } = this.mirrors.mirror.record;
    const { id, max_rate_bytes_per_s } = start;
    const goesOn = start.resume && now?.state === "stopped" && now.of === of ? now : undefined;
    const record: VerifyRecord = {
      ...(goesOn ?? fresh(of, volume.sizeBytes)),
      id,
      state: "running",
      max_rate_bytes_per_s,
      started_at: goesOn?.started_at ?? new Date(context.clock.nowMs()).toISOString(),
      ended_at: null,
    };
    await directory.saveVerify(record);
    this.#run(record);
    this.parts.emit("mirror.verify-started", "info", `Comparing both sides of ${volume.name}`, {
      operation: id,
      total_bytes: record.total_bytes,
      done_bytes: record.done_bytes,
    });
    return this.#statusOf(record);
  }

  /** Ends the verify that runs; its cursor is kept. @throws {PsmaError} state/no-verify */
  async stop(): Promise<VerifyStatus> {
    const { name } = this.parts.volume;
    if (this.#now()?.state !== "running") {
      throw new PsmaError("state/no-verify", `Cannot stop the verify of ${name}: none is running`);
    }
    await this.#verify?.stop();
    return this.#statusOf(this.#now() ?? fresh("", 0));
  }

  /** How the verify stands that runs or ran last; null when there never was one. */
  status(): VerifyStatus | null {
    const record = this.#now();
    return record ? this.#statusOf(record) : null;
  }

  /** Keeps where it is. After this the mirror may end. */
  async close(): Promise<void> {
    const verify = this.#verify;
    if (verify?.record.state !== "running") return;
    await verify.halt();
    await this.parts.directory.saveVerify(verify.record);
  }

  /** The record, as true as it is now: what cannot go on is not running. */
  #now(): VerifyRecord | undefined {
    const record = this.#verify?.record ?? this.#last;
    if (record?.state !== "running" || record.of === this.#mirrorId()) return record;
    return { ...record, state: "stopped" };
  }

  #run(record: VerifyRecord) {
    const { directory, emit, volume } = this.parts;
    this.#last = record;
    this.#verify = this.mirrors.mirror.verification.start({
      record,
      save: (now) => directory.saveVerify(now),
      onEnd: (ended) => {
        const { state, equal_bytes, behind_bytes, busy_bytes, mismatched_bytes } = ended;
        const differs = mismatched_bytes > 0;
        const message = state === "stopped"
          ? `The comparison of ${volume.name} was stopped`
          : differs
          ? `Both sides of ${volume.name} differed in ${mismatched_bytes} bytes`
          : `Both sides of ${volume.name} hold the same`;
        const data = { equal_bytes, behind_bytes, busy_bytes, mismatched_bytes };
        emit("mirror.verify-ended", differs ? "error" : "info", message, {
          operation: ended.id,
          ...data,
        });
      },
    });
  }

  #statusOf({ later: _, ...record }: VerifyRecord): VerifyStatus {
    const verify = this.#verify;
    const live = verify?.record.id === record.id && record.state === "running" ? verify : undefined;
    const reason = live?.reason ??
      (record.state === "stopped" && record.ended_at === null ? ENDED : undefined);
    return {
      ...record,
      ...(reason === undefined ? {} : { reason }),
      rate_bytes_per_s: live?.rateBytesPerSecond ?? 0,
    };
  }

  #mirrorId(): string | undefined {
    return this.mirrors.exists ? this.mirrors.mirror.record.id : undefined;
  }
}

function fresh(of: string, total_bytes: number): VerifyRecord {
  return {
    id: "",
    side: "mirror",
    of,
    state: "running",
    max_rate_bytes_per_s: null,
    started_at: "",
    ended_at: null,
    total_bytes,
    done_bytes: 0,
    later: [],
    equal_bytes: 0,
    behind_bytes: 0,
    busy_bytes: 0,
    mismatched_bytes: 0,
    mismatches: [],
  };
}
