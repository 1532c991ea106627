/**
 * What the agent shows and takes: the contract between agent/ and api/. Plain records in the shape that
 * CONTRACT.md promises to programs (snake_case, unit last); times are RFC 3339 UTC unless named `_ms`.
 */
import type {
  BackupStatus,
  CutoverReport,
  ExportInfo,
  MirrorStatus,
  OperationReport,
  Placement,
  RangeOwners,
  VerifyStatus,
} from "../dataplane/mod.ts";
import type { Forecast } from "../forecast/mod.ts";

export type VolumeState = "attached" | "detached" | "failed";

export interface VolumeView {
  readonly name: string;
  readonly state: VolumeState;
  /** Why it is failed, or what it waits for. */
  readonly reason?: string;
  readonly size_bytes: number;
  readonly max_size_bytes: number;
  readonly epoch: number;
  readonly active: {
    readonly store: string;
    readonly backend: string;
    readonly uri: string;
    /** What it did since it was opened. */
    readonly operations: readonly OperationReport[];
  };
  readonly backup: BackupView | null;
  readonly exports: readonly ExportInfo[];
  readonly filesystem: {
    readonly type: string;
    readonly mount: string;
    readonly size_bytes: number;
    readonly used_bytes: number;
    readonly inodes_total: number;
    readonly inodes_used: number;
  } | null;
  /** What the forecast watches: used bytes of the file system, or allocated bytes of a raw volume. */
  readonly used_bytes: number;
  readonly used_source: "filesystem" | "allocated";
  readonly mirror: MirrorStatus | null;
  readonly last_cutover: CutoverReport | null;
  readonly time_to_full: TimeToFull | null;
}

/** The former source, and how it stands to the volume. */
export interface BackupView extends Omit<BackupStatus, "mirror"> {
  readonly store: string;
  readonly size_bytes: number;
  /** What it lacks, while it is followed: bytes, and milliseconds since it was complete; null where unknown. */
  readonly dirty_bytes: number | null;
  readonly lag_ms: number | null;
}

/** Null times: not within the horizon. */
export interface TimeToFull {
  readonly limit_bytes: number;
  readonly median_at: string | null;
  /** At the policy's upper quantile level: the time the plan acts on. */
  readonly upper_at: string | null;
  readonly upper_level: number;
  readonly probability_within_horizon: number;
  readonly forecast_at: string;
}

export type PlanAction = "none" | "wait" | "mirror" | "scale" | "switch" | "advise" | "blocked";

/** What the agent would do now, and why. */
export interface Plan {
  readonly volume: string;
  readonly at: string;
  readonly action: PlanAction;
  /** Sentences, most important first. */
  readonly because: readonly string[];
  /** Every number that the decision used, unit last in its name. */
  readonly numbers: Readonly<Record<string, number | null>>;
  readonly target_size_bytes: number | null;
}

export interface AgentEvent {
  /** Rises by one per event; the position for resuming. */
  readonly id: number;
  readonly at: string;
  /** Dotted: `mirror.started`, `cutover.committed`, `forecast.tripped`, … */
  readonly type: string;
  readonly severity: "info" | "warning" | "error";
  readonly volume: string | null;
  readonly message: string;
  readonly data: Readonly<Record<string, string | number | boolean | null>>;
}

export interface Operation {
  readonly id: string;
  readonly verb: string;
  readonly volume: string;
  readonly state: "running" | "done" | "failed";
  readonly started_at: string;
  readonly ended_at: string | null;
  readonly error: { readonly code: string; readonly title: string; readonly hint?: string } | null;
  readonly result: unknown;
}

export interface AgentStatus {
  readonly version: string;
  readonly started_at: string;
  readonly ready: boolean;
  /** Why not ready; empty when ready. */
  readonly not_ready: readonly string[];
  /** Network stores that did not answer when last asked. */
  readonly unreachable_stores: readonly { readonly name: string; readonly reason: string }[];
  readonly volumes: readonly VolumeView[];
}

export interface CreateVolume {
  readonly name: string;
  readonly size_bytes: number;
  readonly max_size_bytes?: number;
  /** A store of the configuration; default: the first. */
  readonly store?: string;
  readonly frontend?: "auto" | "ublk" | "fuse" | "nbd";
}

/** How to compare both sides of a mirror. */
export interface VerifyOptions {
  /** Default: what the configuration says. */
  readonly max_rate_bytes_per_s?: number;
  /** From where a stopped one was. */
  readonly resume?: boolean;
  /** The frozen backup, with its own digests, instead of both sides of the mirror. */
  readonly backup?: boolean;
}

/** What a verify answers with. */
export interface VerifyResult extends VerifyStatus {
  /** Of the first ranges that differed, where a file system is mounted. */
  readonly owners: readonly RangeOwners[];
}

export interface HistoryQuery {
  readonly metric: string;
  readonly from_ms: number;
  readonly to_ms: number;
  readonly step_ms: number;
}

/** The running agent, as the API sees it. Every method that names a volume throws not-found/volume. */
export interface Agent {
  status(): Promise<AgentStatus>;
  volume(name: string): Promise<VolumeView>;
  createVolume(spec: CreateVolume): Promise<VolumeView>;
  /** Refuses (state/attached) while it is attached. Deletes its bytes. */
  deleteVolume(name: string): Promise<void>;
  attach(name: string): Promise<VolumeView>;
  /** Refuses (state/busy) while somebody uses it, unless forced. */
  detach(name: string, options?: { force?: boolean }): Promise<VolumeView>;
  /** Takes a volume back from another agent, which is cut off. @throws {PsmaError} state/not-fenced, state/attached */
  claim(name: string): Promise<VolumeView>;
  forecast(
    name: string,
    query: { metric: string; horizon_ms?: number; levels?: readonly number[] },
  ): Promise<Forecast>;
  history(name: string, query: HistoryQuery): Promise<readonly { at_ms: number; value: number }[]>;
  plan(name: string): Promise<Plan>;
  mirror(name: string): Promise<MirrorStatus | null>;
  /** @param order.size_bytes of the target; default: what the plan asks for. */
  startMirror(name: string, order: ScaleOrder): Promise<Operation>;
  pauseMirror(name: string): Promise<MirrorStatus>;
  resumeMirror(name: string): Promise<MirrorStatus>;
  cancelMirror(name: string): Promise<void>;
  /** Compares both sides of the mirror while the volume is in use. The result is a VerifyResult. */
  verifyMirror(name: string, options: VerifyOptions): Promise<Operation>;
  stopVerify(name: string): Promise<VerifyStatus>;
  /** A scaling event: mirror where needed, switch, grow. */
  scale(name: string, order: ScaleOrder): Promise<Operation>;
  /** Cuts over to the mirror that is there, and grows. */
  switchVolume(name: string, order?: Wish): Promise<Operation>;
  /** Deletes the backup. */
  /** @throws {PsmaError} state/would-lose unless what was written since the backup was frozen may be lost. */
  rollback(name: string, options?: { discard_changes?: boolean }): Promise<Operation>;
  retire(name: string): Promise<Operation>;
  operation(id: string): Operation;
  /** Events with id > after, oldest first. */
  events(query: { after?: number; limit?: number; volume?: string }): readonly AgentEvent[];
  /** Calls back with each new event until the signal aborts. */
  subscribe(onEvent: (event: AgentEvent) => void, signal: AbortSignal): void;
  /** Counter pages by volume (layout: codec/counters.ts is the agent's business: named values come out). */
  metrics(): Promise<readonly MetricFamily[]>;
}

/** How soon an operator wants something. */
export interface Wish {
  /** From now on; 0: at once, whatever that costs the application. Absent: as fast as the application lets it. */
  readonly deadline_ms?: number;
}

export interface ScaleOrder extends Wish {
  readonly size_bytes?: number;
}

/** One family of Prometheus's text format. */
export interface MetricFamily {
  readonly name: string;
  readonly help: string;
  readonly type: "counter" | "gauge" | "histogram";
  readonly samples: readonly {
    /** Appended to the family's name: `_bucket`, `_sum`, `_count`, or nothing. */
    readonly suffix?: string;
    readonly labels: Readonly<Record<string, string>>;
    readonly value: number;
  }[];
}

export type { CutoverReport, ExportInfo, Forecast, MirrorStatus, Placement, VerifyStatus };
