/** What main.ts gives the command line: everything that loads more than a client needs, on demand. */
import type { Clock } from "../core/mod.ts";

export interface CliParts {
  readonly version: string;
  readonly clock: Clock;
  readonly config: ConfigTools;
  startAgent(options: StartAgent): Promise<Service>;
  startStore(options: StartStore): Promise<Service>;
  /** Serves forecasts on standard input and output until its parent closes them. @returns the exit code. */
  serveForecaster(args: readonly string[]): Promise<number>;
  /** Forecasts the past of a task file's series and scores that, unless the forecasts go to a file. */
  backtestTasks(order: TasksOrder, onProgress: BacktestProgress): Promise<readonly BacktestTable[]>;
  /** The same for one history. */
  backtestHistory(
    order: HistoryOrder,
    onProgress: BacktestProgress,
  ): Promise<readonly BacktestTable[]>;
  /** A host process's whole life: one task by name, see dataplane/host/tasks.ts. */
  serveHostTask(name: string): Promise<void>;
  /** Opens an NBD export in this process. */
  openNbdDevice(uri: string): Promise<NbdDevice>;
  probeHost(options: ProbeHost): Promise<readonly Finding[]>;
  /** Asks the network stores of the configuration at `path`. */
  probeStores(path: string): Promise<readonly Finding[]>;
}

/** The configuration as the command line needs it; reading it is the agent's business. */
export interface ConfigTools {
  /** @throws {PsmaError} config/... with line and column. */
  load(path: string): Promise<LoadedConfig>;
  /** Everything that is wrong with a file, one line each, in order; empty when nothing is. */
  check(path: string): Promise<readonly ConfigFault[]>;
  /** Sentences: what a faultless configuration asks for and this process cannot do. */
  warnings(path: string): Promise<readonly string[]>;
}

export interface ConfigFault {
  readonly code: string;
  readonly line: number;
  readonly column: number;
  readonly message: string;
  readonly hint?: string;
}

export interface LoadedConfig {
  readonly path: string;
  readonly listen: string;
  readonly token_file: string;
  readonly state_dir: string;
  /** With every default filled in. */
  readonly values: Readonly<Record<string, unknown>>;
}

export interface StartAgent {
  readonly config: string;
  readonly log_level: "debug" | "info" | "warn" | "error";
}

export interface StartStore {
  /** Volumes go to the one with the most free space. */
  readonly directories: readonly string[];
  readonly listen: string;
  readonly nbd_listen: string;
  /** Null: NBD without TLS. */
  readonly nbd_tls: {
    readonly cert_file: string;
    readonly key_file: string;
    readonly client_ca_file?: string;
  } | null;
  /** Null: the address that is listened on. */
  readonly nbd_host: string | null;
  /** Left out: 256 connections, and no limit of idle time. */
  readonly nbd_limits: { readonly connections?: number; readonly idle_s?: number };
  /** Null: a file in the first directory. */
  readonly token_file: string | null;
  readonly capacity_bytes: number | null;
  readonly log_level: "debug" | "info" | "warn" | "error";
}

/** A running agent or store in this process. */
export interface Service {
  readonly url: string;
  /** Rejects when the service can no longer work; never resolves. */
  readonly failed: Promise<never>;
  stop(): Promise<void>;
}

/** A block device over NBD. Offsets and lengths in bytes. */
export interface NbdDevice {
  readonly size_bytes: number;
  read(at: number, length: number): Promise<Uint8Array>;
  write(at: number, bytes: Uint8Array): Promise<void>;
  flush(): Promise<void>;
  close(): Promise<void>;
}

export interface ProbeHost {
  readonly state_dir: string;
  readonly token_file: string;
}

/** One line of `psma doctor`. */
export interface Finding {
  readonly name: string;
  readonly level: "ok" | "warn" | "fail";
  /** What was found. */
  readonly found: string;
  /** What to do about it; only where there is something to do. */
  readonly advice?: string;
}

export interface TasksOrder {
  readonly tasks_file: string;
  /** Directory that holds the tasks' sets. */
  readonly data: string;
  /** Only these tasks; all when empty. */
  readonly only: readonly string[];
  /** Where forecasts go instead of being scored. */
  readonly forecasts: string | null;
}

export interface HistoryOrder {
  readonly history:
    | { readonly file: string; readonly value: string | null }
    | { readonly name: string; readonly points: readonly { at_s: number; value: number }[] };
  readonly metric: string;
  readonly horizon_s: number | null;
  readonly step_s: number | null;
  readonly origins: number;
}

export type BacktestProgress = (task: string, done: number, all: number) => void;

/** One task's methods, ours first. */
export interface BacktestTable {
  readonly task: string;
  readonly horizon_steps: number;
  readonly step_s: number;
  readonly methods: readonly {
    readonly method: string;
    readonly series: number;
    readonly forecasts: number;
    /** Geometric means of the score by naive's. */
    readonly relative_pinball: number;
    readonly relative_interval: number;
    readonly mase: number;
    readonly smape: number;
    readonly coverage80: number;
    readonly coverage95: number;
    readonly msis: number;
    readonly fit_ms: number | null;
  }[];
}
