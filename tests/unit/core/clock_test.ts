/** The system's clock: sleeps at least as long as asked, and wakes at once when told to. */
import { equal, ok, rejects } from "node:assert/strict";
import { systemClock } from "../../../src/core/clock.ts";

Deno.test("systemClock.sleep() lasts as long as asked on the monotonic clock", async () => {
  const began_ms = systemClock.monotonicMs();
  await systemClock.sleep(20);
  // Timers count in whole milliseconds.
  ok(systemClock.monotonicMs() - began_ms >= 19);
});

Deno.test("systemClock.sleep() rejects with the reason when aborted, before and during", async () => {
  const reason = new Error("stop");
  await rejects(systemClock.sleep(60_000, AbortSignal.abort(reason)), reason);
  const controller = new AbortController();
  const sleeping = systemClock.sleep(60_000, controller.signal);
  controller.abort(reason);
  await rejects(sleeping, reason);
});

Deno.test("systemClock.sleep() ignores an abort after it has ended", async () => {
  const controller = new AbortController();
  equal(await systemClock.sleep(0, controller.signal), undefined);
  controller.abort(new Error("late"));
});

Deno.test("systemClock.nowMs() is wall time", () => {
  ok(systemClock.nowMs() > Date.UTC(2025, 0) && systemClock.nowMs() < Date.UTC(2100, 0));
});
