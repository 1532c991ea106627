/**
 * What crosses between the main thread and the data-plane thread: plain records, tagged by `kind`,
 * numbered by `seq`. Never an address, never an Error object.
 */
import type { ErrorRecord } from "../core/mod.ts";
import type { OperationReport } from "../backend/mod.ts";
import type { NbdServerStatistics } from "../frontend/mod.ts";
import type {
  DIGEST_ALGORITHM,
  Guidance,
  LoadStep,
  MirrorState as AnyMirrorState,
} from "../mirror/mod.ts";
import type {
  BackendSpec,
  BackupMode,
  CutoverReport,
  DifferingRange,
  LatencyReport,
  MirrorTerms,
  Placement,
  RateWindow,
  TlsSpec,
  VerifyRecord,
} from "../codec/mod.ts";

export type { LoadStep, NbdServerStatistics, OperationReport };
export type {
  BackendSpec,
  BackupMode,
  CutoverReport,
  DifferingRange,
  LatencyReport,
  MirrorTerms,
  Placement,
  RateWindow,
  TlsSpec,
};

/** Of a mirror that is there: one that was switched to has ended. */
export type MirrorState = Exclude<AnyMirrorState, "switched">;

/** As `psma mirror status V --json` prints it. */
export interface MirrorStatus {
  readonly id: string;
  /** `backup`: it leads back, to the former source. */
  readonly role: "scale" | "backup";
  readonly state: MirrorState;
  readonly reason?: string;
  readonly target: Placement;
  readonly total_bytes: number;
  readonly copied_bytes: number;
  /** Of what the target may hold already, by this process: compared, and found equal, so that it was not sent. */
  readonly compared_bytes: number;
  readonly equal_bytes: number;
  /** Bytes of chunks that were written since the first round began. */
  readonly changed_bytes: number;
  /** What the target lacks: left of the round under way, or for the next one. */
  readonly dirty_bytes: number;
  /** Of the round under way, in [0, 100]; it never falls in a round, and between rounds it is 100. */
  readonly percent: number;
  /** Of copying, while it goes on; else 0. */
  readonly rate_bytes_per_s: number;
  /** Of chunks that become dirty. */
  readonly dirty_rate_bytes_per_s: number;
  /** Age of the oldest write that the target lacks; null until it was complete for the first time. */
  readonly lag_ms: number | null;
  /** Seconds until nothing is dirty at the present rates; null when it does not converge. */
  readonly eta_s: number | null;
  /** 80 % of such times lie between them; `eta_high_s` null: no bound can be given. */
  readonly eta_low_s: number | null;
  readonly eta_high_s: number | null;
  /** Why there is no `eta_s`; null when there is. */
  readonly eta_reason: string | null;
  readonly scheduled: {
    /** RFC 3339; null while a round is under way, and when nothing is dirty. */
    readonly next_round_at: string | null;
    readonly floor_bytes_per_s: number;
    /** Null for none. */
    readonly ceiling_bytes_per_s: number | null;
    /** Sentences, the weightiest first. */
    readonly because: readonly string[];
  };
  readonly rounds: number;
  readonly write_through: boolean;
  readonly digests: {
    readonly algorithm: string;
    readonly checked: number;
    readonly mismatched: number;
    /** Bytes of chunks that were written through to both sides and not compared since. */
    readonly unverified_bytes: number;
  };
  /** The comparison of both sides that runs, or ran last; null when there was none. */
  readonly verify: VerifyStatus | null;
}

/** How a comparison of both sides stands. */
export interface VerifyStatus extends Omit<VerifyRecord, "later"> {
  /** What a running one waits for, or why a stopped one cannot go on. */
  readonly reason?: string;
  /** Of what was looked at since it was begun or gone on with. */
  readonly rate_bytes_per_s: number;
}

/** How the backup stands to its volume. */
export interface BackupStatus {
  readonly mode: BackupMode;
  /** `in-step`: it has every acknowledged write. `behind`: it is followed, and lacks some. `taken-over`: by another agent. */
  readonly state: "frozen" | "behind" | "in-step" | "taken-over";
  /** What was written later is not there: RFC 3339; null while it is followed. */
  readonly frozen_at: string | null;
  /** Why it is not followed; null where it is. */
  readonly reason: string | null;
  /** It is the volume as it was at one moment, so that it could be gone back to. */
  readonly complete: boolean;
  /** Written since it was frozen, as far as this process knows: bytes, at least. */
  readonly written_bytes: number;
  /** The scrub of this very backup that runs, or ran last; null when there was none, and while it is followed. */
  readonly verify: VerifyStatus | null;
  /** The mirror that follows; null where there is none. */
  readonly mirror: MirrorStatus | null;
}

/** What is to become of the source after a switch. */
export interface BackupOrder {
  readonly mode: BackupMode;
  readonly terms: MirrorTerms;
  /** In lock-step: how long the active store may be lost before the backup takes over; left out: for ever. */
  readonly failover_after_ms?: number;
}

/** How applications reach a volume. */
export type FrontendName = "ublk" | "fuse" | "nbd";

export type ExportInfo =
  | {
    readonly frontend: "nbd";
    readonly uri: string;
    /** Where the kernel's client stands on the export. */
    readonly device?: string;
    readonly mount?: string;
  }
  | { readonly frontend: "ublk"; readonly device: string; readonly mount?: string }
  | {
    readonly frontend: "fuse";
    readonly path: string;
    readonly device: string;
    readonly mount?: string;
  };

export interface VolumeStatus {
  readonly name: string;
  readonly size_bytes: number;
  readonly max_size_bytes: number;
  readonly epoch: number;
  readonly active: Placement;
  readonly backup: Placement | null;
  readonly backup_status: BackupStatus | null;
  readonly allocated_bytes: number | null;
  readonly connected: boolean;
  /** The active store has let another writer in and refuses us for good: all I/O fails. */
  readonly fenced?: boolean;
  /** What the active backend did since it was opened, by kind of operation. */
  readonly operations: readonly OperationReport[];
  readonly exports: readonly ExportInfo[];
  /** The one that leads to a larger place; one that leads back is the backup's. */
  readonly mirror: MirrorStatus | null;
  readonly last_cutover: CutoverReport | null;
}

/** What a block device on a volume has to be like. */
export interface VolumeGeometry {
  readonly size_bytes: number;
  readonly max_size_bytes: number;
  readonly sector_bytes: number;
  readonly read_only: boolean;
  /** Largest read or write that the data plane takes. */
  readonly max_io_bytes: number;
}

export interface OpenVolume {
  readonly name: string;
  /** Directory of the volume's own files: manifest and change map. Made when absent. */
  readonly directory: string;
  readonly max_size_bytes: number;
  /** Where a volume without a manifest begins; with a manifest, the manifest decides. */
  readonly initial?: Placement;
}

export interface StartMirror {
  readonly volume: string;
  readonly id: string;
  readonly target: Placement;
  readonly terms: MirrorTerms;
  /** The target held data before: digests are compared before anything is sent. */
  readonly compare: boolean;
}

export interface GuideMirror extends Guidance {
  readonly volume: string;
  /** As configured now; they hold from now on. */
  readonly terms: MirrorTerms;
}

export interface StartVerify {
  readonly volume: string;
  /** `backup`: a frozen one, with digests of itself. */
  readonly side: "mirror" | "backup";
  /** Of the operation; one that runs already is not begun again. */
  readonly id: string;
  /** Ceiling, bytes per second; null for none but the application's own latency. */
  readonly max_rate_bytes_per_s: number | null;
  /** Goes on where a stopped one was. */
  readonly resume: boolean;
}

/** Limits of an NBD server; its own where left out. */
export interface NbdLimits {
  /** Clients that may be connected at once. */
  readonly connections?: number;
  /** Seconds after which a client is cut that sends nothing and waits for nothing; 0: never. */
  readonly idle_s?: number;
}

export interface ServeNbd extends NbdLimits {
  /** A Unix socket path, or host and port (port 0: any). */
  readonly listen: { readonly path: string } | { readonly host: string; readonly port: number };
  /** Sessions must name an epoch (`volume@3`) to write, and a newer one cuts the older: a data store's way. */
  readonly fenced: boolean;
}

/** Commands: main thread → data plane. Each has one answer with the same `seq`. */
export interface Commands {
  openVolume: { argument: OpenVolume; answer: VolumeStatus };
  closeVolume: { argument: { name: string }; answer: null };
  volumeStatus: { argument: { name: string }; answer: VolumeStatus };
  setMaxSize: { argument: { name: string; max_size_bytes: number }; answer: null };
  /** Grows the active backend and then the volume. */
  growVolume: { argument: { name: string; size_bytes: number }; answer: VolumeStatus };
  serveNbd: { argument: ServeNbd; answer: { address: string } };
  /**
   * Puts a volume on the NBD server's list; where fenced, no writer below `epoch` ever comes in.
   * @returns its URI.
   */
  exportNbd: {
    argument: { name: string; description: string; epoch?: number };
    answer: { uri: string };
  };
  /** How many connections of clients use the volume now. */
  nbdSessions: { argument: { name: string }; answer: { sessions: number } };
  /** What the NBD server has seen; null where there is none. */
  nbdStatistics: { argument: null; answer: NbdServerStatistics | null };
  /** Takes a volume off the list and cuts its sessions; nothing when it is not there. */
  unexportNbd: { argument: { name: string }; answer: null };
  /** Mounts a one-file file system for the volume on `path` and serves it. */
  exportFuse: { argument: { name: string; path: string }; answer: null };
  /** Goes on serving the file that a killed process left, with everybody who waits for it. */
  takeOverFuse: { argument: { name: string; path: string }; answer: { taken: boolean } };
  /** Stops serving; the caller has detached the loop device and unmounted. */
  unexportFuse: { argument: { name: string }; answer: null };
  volumeGeometry: { argument: { name: string }; answer: VolumeGeometry };
  /** Serves a ublk device that is added, or whose recovery has begun; one that it serves already stays so. */
  exportUblk: { argument: { name: string; device: number; depth: number }; answer: null };
  /** Closes our end of a device that has been stopped. */
  unexportUblk: { argument: { name: string }; answer: null };
  startMirror: { argument: StartMirror; answer: MirrorStatus };
  mirrorStatus: { argument: { volume: string }; answer: MirrorStatus | null };
  pauseMirror: { argument: { volume: string }; answer: MirrorStatus };
  resumeMirror: { argument: { volume: string }; answer: MirrorStatus };
  /** Tells the schedules of the volume's mirror, also of the one that leads back, what is predicted. */
  guideMirror: { argument: GuideMirror; answer: null };
  /** Forgets the mirror; the caller deletes the target at its store. */
  cancelMirror: { argument: { volume: string }; answer: null };
  /** Begins to compare both sides of the mirror, or the backup with its digests; answers at once. */
  beginVerify: { argument: StartVerify; answer: VerifyStatus };
  verifyStatus: {
    argument: { volume: string; side: VerifyRecord["side"] };
    answer: VerifyStatus | null;
  };
  stopVerify: { argument: { volume: string }; answer: VerifyStatus };
  /** Resync rounds, then write-through, until ready. Answers when ready. */
  convergeMirror: { argument: { volume: string; timeout_ms: number }; answer: MirrorStatus };
  /** Cuts over to the target. Converges first when needed. Answers after the manifest's commit. */
  switchVolume: {
    argument: { volume: string; timeout_ms: number; backup?: BackupOrder };
    answer: CutoverReport;
  };
  /** Takes over that the followed backup has grown at its store. */
  growBackup: { argument: { volume: string; size_bytes: number }; answer: null };
  /** Ends the following of the backup, if there is any. */
  freezeBackup: { argument: { volume: string; reason: string }; answer: null };
  /** The backup becomes the active backend of a volume that is not open: see `restoreBackup`. */
  restoreBackup: { argument: { name: string; directory: string }; answer: { epoch: number } };
  /** Makes ready to take a volume that is not open back from another agent: see `claimBack`. */
  claimVolume: { argument: { name: string; directory: string }; answer: { epoch: number } };
  /** Forgets the backup; the caller deletes it at its store. */
  retireBackup: { argument: { volume: string }; answer: null };
  /** Digests of what is persisted now, one per extent, in order. */
  digestExtents: {
    argument: { name: string; extents: readonly { at: number; length: number }[] };
    answer: { algorithm: typeof DIGEST_ALGORITHM; digests: string[] };
  };
  /** Raises the volume's fencing epoch; sessions with a lower one are cut before it answers. */
  promote: { argument: { name: string; epoch: number }; answer: { epoch: number } };
  /** Opens an NBD export as a client, for programs on the main thread. */
  openDevice: {
    argument: { uri: string; tls?: TlsSpec };
    answer: { device: number; size_bytes: number };
  };
  readDevice: {
    argument: { device: number; at: number; length: number };
    answer: Uint8Array;
  };
  writeDevice: {
    argument: { device: number; at: number; bytes: Uint8Array | ArrayBuffer };
    answer: null;
  };
  flushDevice: { argument: { device: number }; answer: null };
  closeDevice: { argument: { device: number }; answer: null };
  stop: { argument: null; answer: null };
}

export type CommandName = keyof Commands;

/** Questions: data plane → main thread, about a store that only the main thread can reach. */
export interface Questions {
  /** Digests of what the target's store persisted. */
  digests: {
    argument: { target: Placement; extents: readonly { at: number; length: number }[] };
    answer: string[];
  };
  /** Fences every writer with a lower epoch at the target's store, and other claimants of the same one. */
  promote: {
    argument: { target: Placement; epoch: number; claimant: string };
    answer: null;
  };
  /** Where the target's store has the fencing epoch now. */
  storeEpoch: { argument: { target: Placement }; answer: number };
}

/** Questions about the TLS relay, which the data plane's handle answers by itself. */
export interface RelayQuestions {
  /** A URI on a Unix socket that leads to the `nbds` one. `patient`: TLS files that are bad now are waited for. */
  tlsRoute: { argument: { uri: string; tls: TlsSpec; patient: boolean }; answer: string };
  /** Why the latest connection over a route failed; null when it did not. */
  tlsFault: { argument: { uri: string }; answer: string | null };
}

/** A question that the data plane's handle answers by itself, too. */
export interface HostQuestions {
  /** IP addresses of a host, the best first. */
  resolveHost: { argument: { host: string }; answer: string[] };
}

export type AllQuestions = Questions & RelayQuestions & HostQuestions;
export type QuestionName = keyof AllQuestions;

/** Something that happened, for the event log. */
export interface DataPlaneEvent {
  readonly at_ms: number;
  readonly type: string;
  readonly severity: "info" | "warning" | "error";
  readonly volume?: string;
  readonly message: string;
  readonly data?: Readonly<Record<string, string | number | boolean | null>>;
}

export type Outcome<T> = { readonly ok: true; readonly value: T } | {
  readonly ok: false;
  readonly error: ErrorRecord;
};

export type ToWorker =
  | {
    readonly kind: "command";
    readonly seq: number;
    readonly name: CommandName;
    readonly argument: unknown;
  }
  | { readonly kind: "answer"; readonly seq: number; readonly outcome: Outcome<unknown> };

export type FromWorker =
  | { readonly kind: "started"; readonly eventFd: number }
  | { readonly kind: "outcome"; readonly seq: number; readonly outcome: Outcome<unknown> }
  | {
    readonly kind: "question";
    readonly seq: number;
    readonly name: QuestionName;
    readonly argument: unknown;
  }
  | { readonly kind: "counters"; readonly volume: string; readonly page: SharedArrayBuffer }
  | { readonly kind: "event"; readonly event: DataPlaneEvent }
  | { readonly kind: "died"; readonly reason: string };
