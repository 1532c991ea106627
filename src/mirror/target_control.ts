/** The mirror's side of the target's store. */
import type { Range } from "../volume/mod.ts";

/** What only the target's store can do. */
export interface TargetControl {
  /** Digests of what the target persisted, one per range, in order. */
  digests(ranges: readonly Range[]): Promise<readonly string[]>;
  /** Fences every writer below `epoch`; durable when it resolves. */
  promote(epoch: number, claimant: string): Promise<void>;
}
