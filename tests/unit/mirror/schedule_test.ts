import { deepEqual, equal, ok } from "node:assert/strict";
import { type Rng, seededRng } from "../../../src/core/mod.ts";
import { ceilingAt } from "../../../src/mirror/rate_windows.ts";
import { sentenceOf } from "../../../src/mirror/reasons.ts";
import type { LoadStep } from "../../../src/mirror/predicted_load.ts";
import {
  decide,
  type ScheduleDecision,
  type ScheduleInput,
  type ScheduleTerms,
} from "../../../src/mirror/schedule.ts";

const MIB = 2 ** 20, MINUTE_MS = 60_000, HOUR_MS = 60 * MINUTE_MS;
const NOW = Date.UTC(2026, 10, 23, 12);
const TERMS: ScheduleTerms = {
  max_rate_bytes_per_s: null,
  min_rate_bytes_per_s: 0,
  resync_interval_ms: HOUR_MS,
};

/** 600 MiB dirty, the oldest a minute old; 10 MiB/s are copied, so a round takes a minute. */
function input(changes: Partial<ScheduleInput> = {}): ScheduleInput {
  return {
    nowMs: NOW,
    terms: TERMS,
    volumeBytes: 2 ** 40,
    dirtyBytes: 600 * MIB,
    unverifiedBytes: 0,
    oldestWriteMs: NOW - MINUTE_MS,
    copyBytesPerSecond: 10 * MIB,
    dirtyBytesPerSecond: 0,
    dirtyPerWritten: 1,
    quietForMs: 0,
    lastRound: null,
    predicted: [],
    deadlineMs: null,
    isCopying: false,
    ...changes,
  };
}

/** Steps of ten minutes from now on. */
function steps(loads: readonly number[], writes: readonly number[] = loads.map(() => 0)) {
  return loads.map((load_iops, index): LoadStep => ({
    from_ms: NOW + index * 10 * MINUTE_MS,
    until_ms: NOW + (index + 1) * 10 * MINUTE_MS,
    write_bytes_per_s: writes[index] ?? 0,
    write_high_bytes_per_s: writes[index] ?? 0,
    load_iops,
  }));
}

const codes = ({ because }: ScheduleDecision) => because.map(({ code }) => code);
/** In minutes from now. */
const next = ({ nextRoundMs }: ScheduleDecision) =>
  nextRoundMs === null ? null : (nextRoundMs - NOW) / MINUTE_MS;

Deno.test("decide() has nothing to do while nothing is dirty, and copies at once what is of unknown age", () => {
  deepEqual(codes(decide(input({ dirtyBytes: 0 }))), ["clean"]);
  equal(decide(input({ dirtyBytes: 0 })).nextRoundMs, null);
  const unknown = decide(input({ oldestWriteMs: null }));
  deepEqual([codes(unknown), next(unknown)], [["incomplete"], 0]);
});

Deno.test("decide() without a forecast waits as long as the RPO lets it, with a margin", () => {
  const decision = decide(input());
  deepEqual(codes(decision), ["rpo"]);
  const minutes = next(decision) ?? 0;
  // Due in 59 minutes; the round takes one and a quarter.
  ok(minutes > 57 && minutes < 57.8, `${minutes}`);
  ok(decision.keepsRpo);
});

Deno.test("decide() begins earlier the more becomes dirty meanwhile", () => {
  const slow = next(decide(input({ dirtyBytesPerSecond: MIB }))) ?? 0;
  const fast = next(decide(input({ dirtyBytesPerSecond: 4 * MIB }))) ?? 0;
  ok(slow < 57 && fast < slow - 5, `${slow} ${fast}`);
});

Deno.test("decide() prefers hours that are predicted to be quiet, the last of them", () => {
  const decision = decide(input({ predicted: steps([900, 900, 50, 50, 900, 900]) }));
  equal(codes(decision)[0], "quiet");
  const minutes = next(decision) ?? 0;
  ok(minutes >= 30 && minutes < 39, `${minutes}: in the quiet time, and early enough to end in it`);
  const even = decide(input({ predicted: steps([900, 900, 900, 900, 900, 900]) }));
  deepEqual(codes(even), ["rpo"]);
});

Deno.test("decide() goes before a predicted burst", () => {
  const writes = [MIB, MIB, MIB, 9 * MIB, 9 * MIB, 9 * MIB];
  const decision = decide(input({ predicted: steps([500, 500, 500, 500, 500, 500], writes) }));
  deepEqual(codes(decision), ["burst"]);
  const minutes = next(decision) ?? 0;
  ok(minutes > 25 && minutes < 30, `${minutes}`);
});

Deno.test("decide() copies what fits into a quiet time that is too short, while the rest has time", () => {
  const predicted = steps([900, 50, 900, 900, 900, 900, 900, 900, 900, 900, 900, 900, 900]);
  const terms = { ...TERMS, resync_interval_ms: 4 * HOUR_MS };
  const decision = decide(input({ predicted, terms, dirtyBytes: 12_000 * MIB }));
  equal(codes(decision)[0], "quiet");
  equal(next(decision), 10);
  equal(decision.scopeBytes, 6000 * MIB);
});

Deno.test("decide() goes at once when the application has stopped writing, but not over and over", () => {
  const quietForMs = 5 * MINUTE_MS;
  const decision = decide(input({ quietForMs }));
  deepEqual([codes(decision), next(decision)], [["settled"], 0]);
  const lastRound = { endedMs: NOW - MINUTE_MS, tookMs: 2 * MINUTE_MS };
  const again = decide(input({ quietForMs, lastRound }));
  deepEqual([codes(again), next(again)], [["settled", "spacing"], 7]);
});

Deno.test("decide() asks for more the nearer the time of need is", () => {
  const far = decide(input({ deadlineMs: NOW + 100 * HOUR_MS }));
  const near = decide(input({ deadlineMs: NOW + 10 * MINUTE_MS }));
  const nearest = decide(input({ deadlineMs: NOW + 10_000 }));
  equal(codes(near)[0], "deadline");
  ok((next(near) ?? 9) < 2 && (next(far) ?? 0) > 50);
  ok(far.floorBytesPerSecond < MIB && near.floorBytesPerSecond > MIB);
  ok(nearest.floorBytesPerSecond > 5 * near.floorBytesPerSecond);
  ok(near.keepsDeadline && !nearest.keepsDeadline);
  equal(codes(nearest)[0], "too-slow");
  const held = decide(input({
    deadlineMs: NOW + 10 * MINUTE_MS,
    terms: { ...TERMS, max_rate_bytes_per_s: MIB / 2 },
  }));
  deepEqual(codes(held).slice(0, 2), ["too-slow", "ceiling"], "and whose doing that is");
  equal(held.because[0]?.numbers["copy_bytes_per_s"], MIB / 2);
  // It goes before the quiet time that is still to come.
  const predicted = steps([900, 900, 50, 50, 900, 900]);
  ok((next(decide(input({ predicted, deadlineMs: NOW + 10 * MINUTE_MS }))) ?? 9) < 2);
});

Deno.test("decide() takes a short burst of writes for no reason to expect more than the volume holds", () => {
  const burst = { volumeBytes: 1200 * MIB, dirtyBytesPerSecond: 100 * MIB };
  const minutes = next(decide(input(burst))) ?? 0;
  // 1.2 GiB take two minutes, two and a half with the margin.
  ok(minutes > 55 && minutes < 57, `${minutes}`);
});

Deno.test("decide() without a deadline leaves the rate to the application, with one that is over to nobody", () => {
  const floor = (changes: Partial<ScheduleInput>) => decide(input(changes)).floorBytesPerSecond;
  ok(floor({ unverifiedBytes: 600 * MIB }) < MIB);
  equal(floor({ deadlineMs: NOW }), 256 * MIB);
  const compared = { deadlineMs: NOW + MINUTE_MS, dirtyBytes: 0, unverifiedBytes: 600 * MIB };
  ok(floor(compared) > 10 * MIB, "what is to be compared counts");
  equal(floor({ deadlineMs: NOW, dirtyBytes: 0 }), 0, "nothing is left to do");
});

Deno.test("decide() says when the RPO cannot be kept, and whether that is the ceiling's doing", () => {
  const late = decide(input({ oldestWriteMs: NOW - HOUR_MS + 10_000 }));
  deepEqual(codes(late), ["late", "rpo"]);
  equal(next(late), 0);
  const terms = { ...TERMS, max_rate_bytes_per_s: 64 * 1024 };
  const held = decide(input({ terms, oldestWriteMs: NOW - 30 * MINUTE_MS }));
  deepEqual(codes(held), ["ceiling", "late", "rpo"]);
  equal(held.ceilingBytesPerSecond, 64 * 1024);
  ok(held.floorBytesPerSecond <= 64 * 1024);
});

Deno.test("decide() begins before hours whose ceiling would make the round late", () => {
  const window = { from_minute: 12 * 60 + 20, to_minute: 18 * 60, days: [1] };
  const rate_windows = [{ ...window, max_rate_bytes_per_s: 64 * 1024 }];
  const decision = decide(input({ terms: { ...TERMS, rate_windows } }));
  const minutes = next(decision) ?? 0;
  ok(minutes > 17 && minutes < 20, `${minutes}`);
  const inside = decide(input({ terms: { ...TERMS, rate_windows }, nowMs: NOW + 2 * HOUR_MS }));
  ok(codes(inside).includes("window"));
  equal(inside.ceilingBytesPerSecond, 64 * 1024);
});

Deno.test("sentenceOf() says each reason in words, without a number that is none", () => {
  const decisions = [
    decide(input()),
    decide(input({ dirtyBytes: 0 })),
    decide(input({ oldestWriteMs: null })),
    decide(input({ quietForMs: HOUR_MS, lastRound: { endedMs: NOW, tookMs: 1000 } })),
    decide(input({ predicted: steps([900, 1, 900, 900, 900, 900], [MIB, 0, 9 * MIB]) })),
    decide(input({ deadlineMs: NOW + HOUR_MS })),
    decide(input({ deadlineMs: NOW + 10 })),
    decide(input({ terms: { ...TERMS, max_rate_bytes_per_s: 99 }, oldestWriteMs: 0 })),
  ];
  for (const sentence of decisions.flatMap(({ because }) => because.map(sentenceOf))) {
    ok(/^[A-Z0-9].*\.$/.test(sentence) && !/NaN|undefined|Infinity/.test(sentence), sentence);
  }
});

function chance(rng: Rng): ScheduleInput {
  const rpoMs = 1000 * 2 ** rng.below(16);
  const window = () => ({
    from_minute: rng.below(1440),
    to_minute: rng.below(1440),
    days: [0, 1, 2, 3, 4, 5, 6].filter(() => rng.below(2) === 0),
    max_rate_bytes_per_s: rng.below(3) === 0 ? null : 2 ** (16 + rng.below(12)),
  });
  const loads = Array.from({ length: rng.below(12) }, () => rng.float() * 1000);
  return input({
    terms: {
      max_rate_bytes_per_s: rng.below(2) === 0 ? null : 2 ** (16 + rng.below(12)),
      min_rate_bytes_per_s: rng.below(2) * 2 ** (16 + rng.below(12)),
      rate_windows: Array.from({ length: rng.below(4) }, window),
      resync_interval_ms: rpoMs,
    },
    volumeBytes: Infinity,
    unverifiedBytes: rng.below(2) * rng.below(2 ** 30),
    dirtyBytes: rng.below(5) === 0 ? 0 : Math.floor(rng.float() * 2 ** (16 + rng.below(20))),
    oldestWriteMs: rng.below(8) === 0 ? null : NOW - rng.float() * rpoMs * 1.2,
    copyBytesPerSecond: rng.below(8) === 0 ? null : 2 ** (20 + rng.below(10)),
    dirtyBytesPerSecond: rng.below(2) * 2 ** (10 + rng.below(16)),
    dirtyPerWritten: 0.1 + rng.float() * 4,
    quietForMs: rng.float() * rpoMs,
    lastRound: rng.below(2) === 0
      ? null
      : { endedMs: NOW - rng.float() * rpoMs, tookMs: rng.float() * rpoMs },
    predicted: steps(loads, loads.map(() => rng.float() * 2 ** (10 + rng.below(16)))),
    deadlineMs: rng.below(2) === 0 ? null : NOW + (rng.float() - 0.2) * 10 * rpoMs,
  });
}

Deno.test("decide(), whatever it is given: keeps the ceiling, and the RPO where it can be kept", () => {
  const rng = seededRng(11);
  let judged = 0;
  for (let i = 0; i < 3000; i++) {
    const given = chance(rng), decision = decide(given), { terms } = given;
    equal(decision.ceilingBytesPerSecond, ceilingAt(terms, NOW));
    ok(decision.floorBytesPerSecond <= (decision.ceilingBytesPerSecond ?? Infinity));
    ok(decision.floorBytesPerSecond >= 0);
    deepEqual(decide(given), decision);
    if (decision.nextRoundMs === null) continue;
    ok(decision.nextRoundMs >= NOW, "never in the past");
    if (decision.scopeBytes !== null) {
      ok(decision.scopeBytes > 0 && decision.scopeBytes <= given.dirtyBytes);
      continue;
    }
    if (given.oldestWriteMs === null || decision.nextRoundMs <= NOW) continue;
    // Played minute by minute: the round that begins then ends in time.
    const dueMs = given.oldestWriteMs + terms.resync_interval_ms;
    const pauseMs = Math.min(1000, terms.resync_interval_ms / 10);
    if (decision.nextRoundMs - NOW <= pauseMs + 1) continue;
    ok(playedEnd(given, decision.nextRoundMs) <= dueMs + 2 * stepOf(given), `case ${i}`);
    judged++;
  }
  ok(judged > 300, `${judged} rounds were played`);
});

const stepOf = ({ terms }: ScheduleInput) => terms.resync_interval_ms / 2000;

/** When the round ends, at the measured rate and under the ceilings, played in small steps. */
function playedEnd(given: ScheduleInput, beginsMs: number): number {
  const stepMs = stepOf(given);
  const dirtied = (atMs: number) => {
    const step = given.predicted.find(({ from_ms, until_ms }) =>
      from_ms <= atMs && atMs < until_ms
    );
    return step === undefined
      ? given.dirtyBytesPerSecond
      : step.write_high_bytes_per_s * given.dirtyPerWritten;
  };
  let left = given.dirtyBytes, atMs = NOW;
  for (; atMs < beginsMs; atMs += stepMs) {
    left += dirtied(atMs) * Math.min(stepMs, beginsMs - atMs) / 1000;
  }
  atMs = beginsMs;
  for (; left > 0; atMs += stepMs) {
    const rate = given.copyBytesPerSecond ?? 50 * MIB;
    left -= Math.min(rate, ceilingAt(given.terms, atMs) ?? Infinity) * stepMs / 1000;
  }
  return atMs - stepMs;
}
