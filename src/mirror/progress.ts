/** What a mirror says about itself. */
import type { MirrorState } from "./state.ts";

/** Numbers for status. Bytes, milliseconds, bytes per second, seconds. */
export interface MirrorProgress {
  readonly state: MirrorState;
  readonly reason: string | undefined;
  readonly copiedBytes: number;
  readonly changedBytes: number;
  readonly dirtyBytes: number;
  readonly rateBytesPerSecond: number;
  readonly lagMs: number | null;
  readonly etaSeconds: number | null;
  readonly rounds: number;
  readonly writeThrough: boolean;
  /** `unverifiedBytes`: written through and not compared since. */
  readonly digests: {
    algorithm: string;
    checked: number;
    mismatched: number;
    unverifiedBytes: number;
  };
}
