/** What a mirror is made of, and what it tells of itself. */
import type { Clock, MemorySource, Turns } from "../core/mod.ts";
import type { BackendCalls } from "../backend/mod.ts";
import type { FirstSync, MirrorLink, MirrorRecord, Volume } from "../volume/mod.ts";
import type { Digest } from "./digest.ts";
import type { MirrorEventSink } from "./events.ts";
import type { ApplicationLoad } from "./pace.ts";
import type { ProgressReport } from "./progress.ts";
import type { Scheduled } from "./scheduler.ts";
import type { MirrorState } from "./state.ts";
import type { TargetControl } from "./target_control.ts";

export interface MirrorOptions {
  readonly record: MirrorRecord;
  readonly volume: Volume;
  readonly link: MirrorLink;
  readonly calls: BackendCalls;
  readonly turns: Turns;
  readonly memory: MemorySource;
  readonly clock: Clock;
  readonly control: TargetControl;
  readonly digest: Digest;
  readonly emit: MirrorEventSink;
  /** The application as it was before the mirror began, where that was seen. */
  readonly undisturbed?: ApplicationLoad | undefined;
  /** Keeps over a restart how far the first sync is; null: it is over. Called now and then. */
  readonly onFirstSync?: (first: FirstSync | null) => void;
  /** It is to be ready always: reached again by itself, with growing pauses, whenever it was left behind. */
  readonly keepsReady?: boolean;
  /** See `Cooling`. */
  readonly coolEveryMs?: number | undefined;
}

/** Numbers for status. Bytes, milliseconds, bytes per second, seconds. */
export interface MirrorProgress extends ProgressReport {
  readonly state: MirrorState;
  readonly reason: string | undefined;
  readonly copiedBytes: number;
  readonly changedBytes: number;
  readonly lagMs: number | null;
  readonly rounds: number;
  readonly writeThrough: boolean;
  readonly scheduled: Scheduled;
  /** `unverifiedBytes`: written through and not compared since. */
  readonly digests: {
    algorithm: string;
    checked: number;
    mismatched: number;
    unverifiedBytes: number;
  };
}
