/** The mirror's states as a table, and one pure step. Effects live in mirror.ts. */
import { assert } from "../core/mod.ts";

/**
 * - requested: the target exists; a round is due at once (after a start, a restart or a resume)
 * - syncing: the first round copies everything that is not a hole
 * - tracking: the target is behind by what the dirty bitmap says; waiting for the next round
 * - resyncing: a round copies what is dirty
 * - converging: write-through is being reached
 * - ready: write-through, nothing dirty, everything checked and flushed on both sides
 * - switching: the cutover is under way
 * - switched: the target is the active backend; this mirror has ended
 * - paused: asked to wait; changes are still tracked
 * - failed: needs the operator
 */
export type MirrorState =
  | "requested"
  | "syncing"
  | "tracking"
  | "resyncing"
  | "converging"
  | "ready"
  | "switching"
  | "switched"
  | "paused"
  | "failed";

export type MirrorEvent =
  | "first-round"
  | "round"
  | "round-done"
  | "converge"
  | "all-clean"
  | "fell-back"
  | "cutover"
  | "committed"
  | "aborted"
  | "kept"
  | "pause"
  | "resume"
  | "fail";

const TABLE: Readonly<Record<MirrorState, Partial<Record<MirrorEvent, MirrorState>>>> = {
  requested: { "first-round": "syncing", pause: "paused", fail: "failed" },
  syncing: { "round-done": "tracking", converge: "converging", pause: "paused", fail: "failed" },
  tracking: { round: "resyncing", converge: "converging", pause: "paused", fail: "failed" },
  resyncing: { "round-done": "tracking", converge: "converging", pause: "paused", fail: "failed" },
  converging: {
    "all-clean": "ready",
    "fell-back": "tracking",
    pause: "paused",
    fail: "failed",
  },
  ready: { cutover: "switching", "fell-back": "tracking", pause: "paused", fail: "failed" },
  switching: {
    committed: "switched",
    aborted: "tracking",
    kept: "ready",
    "fell-back": "tracking",
  },
  switched: {},
  paused: { resume: "requested", fail: "failed" },
  failed: { resume: "requested" },
};

/** The state after an event; undefined when the event has no meaning there. */
export function next(state: MirrorState, event: MirrorEvent): MirrorState | undefined {
  return TABLE[state][event];
}

/** The same for callers that know the event is possible. */
export function step(state: MirrorState, event: MirrorEvent): MirrorState {
  const to = next(state, event);
  assert(to, `mirror cannot go from ${state} by ${event}`);
  return to;
}
