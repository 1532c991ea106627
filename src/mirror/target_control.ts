/** The mirror's side of the target's store. */
import type { Backend } from "../backend/mod.ts";
import type { Range } from "../volume/mod.ts";

/** What only the target's store can do. */
export interface TargetControl {
  /** Digests of what the target persisted, one per range, in order. */
  digests(ranges: readonly Range[]): Promise<readonly string[]>;
  /** Fences every writer below `epoch`; durable when it resolves. */
  promote(epoch: number, claimant: string): Promise<void>;
}

/** Why nothing can be copied to a target now; undefined: it answers. */
export function whyAway(target: Backend): string | undefined {
  if (target.connected) return undefined;
  if (target.fenced === true) return "another agent has taken the target over";
  return "the target is not reachable";
}
