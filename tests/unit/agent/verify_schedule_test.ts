import { equal } from "node:assert/strict";
import { isVerifyDue } from "../../../src/agent/verify_schedule.ts";
import type { VerifyStatus } from "../../../src/dataplane/mod.ts";

const HOUR = 3_600_000;
const started_ms = Date.UTC(2030, 0, 1);

function verify(state: VerifyStatus["state"], ended_ms: number | null): VerifyStatus {
  return {
    id: "op-1",
    side: "mirror",
    of: "m1",
    state,
    max_rate_bytes_per_s: null,
    rate_bytes_per_s: 0,
    started_at: new Date(started_ms).toISOString(),
    ended_at: ended_ms === null ? null : new Date(ended_ms).toISOString(),
    total_bytes: 1,
    done_bytes: 1,
    equal_bytes: 1,
    behind_bytes: 0,
    busy_bytes: 0,
    recorded_bytes: 0,
    mismatched_bytes: 0,
    mismatches: [],
  };
}

function isDue(last: VerifyStatus | null, now_ms: number): boolean {
  return isVerifyDue({ every_ms: HOUR, now_ms, last });
}

Deno.test("isVerifyDue() says at once what was never verified", () => {
  equal(isDue(null, started_ms), true);
});

Deno.test("isVerifyDue() counts from the end of the last one, done or stopped", () => {
  for (const state of ["done", "stopped"] as const) {
    const last = verify(state, started_ms + 5 * HOUR);
    equal(isDue(last, started_ms + 6 * HOUR - 1), false);
    equal(isDue(last, started_ms + 6 * HOUR), true);
  }
});

Deno.test("isVerifyDue() never says so while one runs, and counts one that was cut off from its begin", () => {
  equal(isDue(verify("running", null), started_ms + 99 * HOUR), false);
  equal(isDue(verify("stopped", null), started_ms + HOUR), true);
});
