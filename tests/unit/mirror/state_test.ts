import assert from "node:assert/strict";
import { type MirrorEvent, type MirrorState, next } from "../../../src/mirror/state.ts";

const STATES: MirrorState[] = [
  "requested",
  "syncing",
  "tracking",
  "resyncing",
  "converging",
  "ready",
  "switching",
  "switched",
  "paused",
  "failed",
];
const EVENTS: MirrorEvent[] = [
  "first-round",
  "round",
  "round-done",
  "converge",
  "all-clean",
  "fell-back",
  "cutover",
  "committed",
  "aborted",
  "pause",
  "resume",
  "fail",
];

Deno.test("next() walks the whole way of a mirror", () => {
  const path: MirrorEvent[] = [
    "first-round",
    "round-done",
    "round",
    "round-done",
    "converge",
    "all-clean",
    "cutover",
    "committed",
  ];
  let state: MirrorState = "requested";
  for (const event of path) state = next(state, event) ?? assert.fail(`${state} has no ${event}`);
  assert.equal(state, "switched");
});

Deno.test("next() reaches switching only from ready, and switched only from switching", () => {
  for (const state of STATES) {
    for (const event of EVENTS) {
      const to = next(state, event);
      if (to === "switching") assert.equal(state, "ready");
      if (to === "switched") assert.equal(state, "switching");
      if (to === "ready") assert.equal(state, "converging");
    }
  }
});

Deno.test("next() gives every state but the last a way out", () => {
  for (const state of STATES.filter((one) => one !== "switched")) {
    assert.ok(EVENTS.some((event) => next(state, event) !== undefined), state);
  }
  assert.ok(EVENTS.every((event) => next("switched", event) === undefined));
});
