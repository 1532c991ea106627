/**
 * The verify of one thing of a volume, its mirror or its backup, as commands see it: begun, stopped, gone on
 * with after a restart. How it stands is in a file of the volume's directory, which keeps its result when it
 * has ended.
 */
import { PsmaError } from "../core/mod.ts";
import type { Verify, VerifyOptions } from "../mirror/mod.ts";
import type { VerifyRecord } from "../volume/mod.ts";
import type { StartVerify, VerifyStatus } from "./messages.ts";
import type { VolumeParts } from "./volume_opening.ts";

const ENDED = "what it was a verify of is not there any more";

/** What there is to verify. */
export interface VerifySubject {
  readonly side: VerifyRecord["side"];
  /** What it is called in a sentence: "The backup". */
  readonly wouldDiffer: string;
  /** Tells this one from another of its kind; undefined: there is none now. */
  of(): string | undefined;
  readonly totalBytes: number;
  /** @throws {PsmaError} state/... where there is none. */
  need(): void;
  start(options: Pick<VerifyOptions, "record" | "save" | "onEnd">): Promise<Verify>;
  /** Nothing is being read any more. */
  close(): Promise<void>;
  /** Waits for nobody's answer any more. */
  abort(): void;
}

export class Verification {
  #verify: Verify | undefined;
  #last: VerifyRecord | undefined;
  #starting = false;

  constructor(readonly parts: VolumeParts, readonly subject: VerifySubject) {
    this.#last = parts.directory.loadVerify(subject.side);
  }

  get isRunning(): boolean {
    return this.#starting || this.#now()?.state === "running";
  }

  /** Goes on with the verify that was running when the volume was closed, if its subject is still there. */
  async recover(): Promise<void> {
    const record = this.#last;
    if (record?.state === "running" && record.of === this.subject.of()) await this.#run(record);
  }

  /**
   * Begins a verify; one of the same id goes on. @param start.resume from where a stopped one was.
   * @throws {PsmaError} state/verify while another runs, state/no-mirror, state/no-backup, sys/...
   */
  async begin(start: StartVerify): Promise<VerifyStatus> {
    const { context, directory, emit, volume } = this.parts;
    const now = this.#now();
    if (this.isRunning) {
      if (now?.id === start.id) return this.#statusOf(now);
      throw busy(volume.name);
    }
    this.subject.need();
    const { id, max_rate_bytes_per_s } = start, of = this.subject.of() ?? "";
    const goesOn = start.resume && now?.state === "stopped" && now.of === of ? now : undefined;
    const record: VerifyRecord = {
      ...(goesOn ?? { ...BLANK, total_bytes: this.subject.totalBytes }),
      side: this.subject.side,
      of,
      id,
      max_rate_bytes_per_s,
      started_at: goesOn?.started_at ?? new Date(context.clock.nowMs()).toISOString(),
      state: "running",
      ended_at: null,
    };
    this.#starting = true;
    try {
      // One whose subject has gone may still be waiting for it.
      await this.#verify?.halt();
      await this.subject.close();
      await directory.saveVerify(record);
      await this.#run(record);
    } finally {
      this.#starting = false;
    }
    emit(`${this.subject.side}.verify-started`, "info", `Verifying ${volume.name}`, {
      operation: id,
      total_bytes: record.total_bytes,
      done_bytes: record.done_bytes,
    });
    return this.#statusOf(record);
  }

  /** Ends the verify that runs; its cursor is kept. @throws {PsmaError} state/no-verify */
  async stop(): Promise<VerifyStatus> {
    await this.#verify?.stop();
    const record = this.#now();
    if (record) return this.#statusOf(record);
    throw noVerify(this.parts.volume.name);
  }

  /** How the verify stands that runs or ran last; null when there never was one. */
  status(): VerifyStatus | null {
    const record = this.#now();
    return record ? this.#statusOf(record) : null;
  }

  /** The same, when it is of what there is now; null also when it was of a mirror or backup that is gone. */
  statusOfThis(): VerifyStatus | null {
    const status = this.status();
    return this.#now()?.of === this.subject.of() ? status : null;
  }

  /** Keeps where it is, and reads nothing any more. After this its subject may end. */
  async close(): Promise<void> {
    const verify = this.#verify;
    if (verify?.record.state === "running") {
      this.subject.abort();
      await verify.halt();
      // What is lost where the disk refuses is some comparing again; the volume must close all the same.
      await this.parts.directory.saveVerify(verify.record).catch(() => {});
    }
    await this.subject.close();
  }

  /** The record, as true as it is now: what cannot go on is not running. */
  #now(): VerifyRecord | undefined {
    const record = this.#verify?.record ?? this.#last;
    if (record?.state !== "running" || record.of === this.subject.of()) return record;
    return { ...record, state: "stopped" };
  }

  async #run(record: VerifyRecord) {
    const { directory } = this.parts;
    this.#last = record;
    this.#verify = undefined;
    try {
      this.#verify = await this.subject.start({
        record,
        save: (now) => directory.saveVerify(now),
        onEnd: (ended) => this.#tellEnd(ended),
      });
    } catch (error) {
      this.#last = { ...record, state: "stopped" };
      throw error;
    }
  }

  #tellEnd(ended: VerifyRecord) {
    const { emit, volume } = this.parts, { side, wouldDiffer } = this.subject;
    const { state, equal_bytes, behind_bytes, busy_bytes, recorded_bytes, mismatched_bytes } =
      ended;
    const differs = mismatched_bytes > 0;
    const how = state === "stopped"
      ? "was verified in part"
      : differs
      ? `differed in ${mismatched_bytes} bytes`
      : "is what it should be";
    emit(
      `${side}.verify-ended`,
      differs ? "error" : "info",
      `${wouldDiffer} of ${volume.name} ${how}`,
      {
        operation: ended.id,
        equal_bytes,
        behind_bytes,
        busy_bytes,
        recorded_bytes,
        mismatched_bytes,
      },
    );
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
}

/** One verify a volume at a time. */
export function busy(volume: string): PsmaError {
  return new PsmaError("state/verify", `Cannot verify ${volume}: a verify is under way`, {
    hint: `psma mirror verify ${volume} --stop ends it.`,
  });
}

/** What to say to somebody who wants to stop what does not run. */
export function noVerify(volume: string): PsmaError {
  return new PsmaError("state/no-verify", `Cannot stop the verify of ${volume}: none is running`);
}

const BLANK: VerifyRecord = {
  id: "",
  side: "mirror",
  of: "",
  state: "running",
  max_rate_bytes_per_s: null,
  started_at: "",
  ended_at: null,
  total_bytes: 0,
  done_bytes: 0,
  later: [],
  equal_bytes: 0,
  behind_bytes: 0,
  busy_bytes: 0,
  recorded_bytes: 0,
  mismatched_bytes: 0,
  mismatches: [],
};
