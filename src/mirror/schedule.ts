/**
 * When the mirror's next round is due, how much of it, and between which rates the copier may choose. Pure.
 *
 * - The RPO is a promise: a round begins early enough to end before the oldest write it carries is older than that,
 *   at the measured rate and under the ceilings of the hours in between.
 * - Within the promise, late: a chunk that is written again meanwhile is copied once.
 * - Earlier only where that costs less: at a time that is predicted to be quieter, before a predicted burst,
 *   or when the application has stopped writing.
 * - The nearer the time of need, the shorter the pauses and the higher the floor.
 * - A ceiling is never exceeded. What cannot be kept under it is said.
 *
 * Times are wall time; nothing here knows a clock.
 */
import { calmUntil, type LoadStep, meanLoad } from "./predicted_load.ts";
import { type Ceilings, type CeilingSpan, ceilingSpans } from "./rate_windows.ts";
import type { Reason } from "./reasons.ts";

export interface ScheduleTerms extends Ceilings {
  readonly min_rate_bytes_per_s: number;
  /** The RPO. */
  readonly resync_interval_ms: number;
}

export interface ScheduleInput {
  readonly nowMs: number;
  readonly terms: ScheduleTerms;
  /** No more can become dirty. */
  readonly volumeBytes: number;
  readonly dirtyBytes: number;
  /** Written through to both sides and to be compared before the mirror is ready. */
  readonly unverifiedBytes: number;
  /** When the oldest write was acknowledged that the target lacks; null: before anything is known of. */
  readonly oldestWriteMs: number | null;
  /** What copying can do, measured; null: not yet. */
  readonly copyBytesPerSecond: number | null;
  /** Bytes of chunks that become dirty, measured. */
  readonly dirtyBytesPerSecond: number;
  /** Bytes of chunks that become dirty for each byte written, measured. */
  readonly dirtyPerWritten: number;
  /** For how long nothing new has become dirty. */
  readonly quietForMs: number;
  readonly lastRound: { readonly endedMs: number; readonly tookMs: number } | null;
  /** Ascending, not overlapping; empty where there is no forecast to trust. */
  readonly predicted: readonly LoadStep[];
  /** When the mirror must be complete; null: no need is in sight. */
  readonly deadlineMs: number | null;
  /** Something is copied already: then only its limits are asked for. */
  readonly isCopying: boolean;
}

export interface ScheduleDecision {
  /** Null: nothing is dirty, or something is copied. */
  readonly nextRoundMs: number | null;
  /** Copy so much and leave the rest to a later round; null: all. */
  readonly scopeBytes: number | null;
  readonly floorBytesPerSecond: number;
  /** Null for none. */
  readonly ceilingBytesPerSecond: number | null;
  /** The weightiest first. */
  readonly because: readonly Reason[];
  readonly keepsRpo: boolean;
  readonly keepsDeadline: boolean;
}

/** Assumed until measured: a slow disk behind a 1 Gbit/s network. */
const PRIOR_BYTES_PER_S = 50 * 2 ** 20;
/** Rates vary: a round is given this much more time than it should take, and then some for flush and checks. */
const MARGIN = 1.25, ENDING_MS = 200, ENDING_SHARE = 0.1;
/** The pause after a round, as a share of the RPO and as a multiple of what the round took. */
const PAUSE_SHARE = 0.1, PAUSE_MS_MAX = 1000, PAUSE_ROUNDS = 4;
/** Not to be urged on beyond this, however late: the application lives too. */
const URGENT_BYTES_PER_S_MAX = 256 * 2 ** 20;
/**
 * Shares of the RPO: a round that takes longer than expected is to end so long before it is over, and hurries at
 * most so much for that; once it is late there is no hurry any more.
 */
const RESERVE_SHARE = 0.02, HURRY_SHARE = 0.005, CATCH_UP_SHARE = 0.1, HURRY_MS_MIN = 1000;
/** As the time of need comes near, no write waits longer than this share of what is left. */
const DEADLINE_SHARE = 0.25, DEADLINE_RPO_MS_MIN = 1000;
/** Quieter by this factor is worth the copies that are made again; a burst is this many times as much. */
const WORTH = 0.7, BURST = 2;
/** Loads that differ by less are alike. */
const ALIKE = 1.1;
const SETTLED_SHARE = 0.05, SETTLED_MS_MIN = 2000;
const BISECTIONS = 24;

/** Decides. The same input, the same answer. */
export function decide(input: ScheduleInput): ScheduleDecision {
  const spans = ceilingSpans(input.terms, input.nowMs);
  const facts = factsOf(input, spans);
  const round = nextRound(input, facts);
  const rates = ratesOf(input, facts, spans[0]?.ceiling ?? null);
  return {
    ...rates,
    nextRoundMs: round.atMs,
    scopeBytes: round.scopeBytes,
    because: [...rates.because, ...round.because],
    keepsRpo: facts.keepsRpo,
    keepsDeadline: facts.keepsDeadline,
  };
}

/** Worked out once. */
interface Facts {
  readonly rate: number;
  readonly rpoMs: number;
  /** When the oldest write has waited for the RPO. */
  readonly dueMs: number;
  /** When a round that begins at `atMs` ends, margin included. */
  readonly endOf: (atMs: number) => number;
  /** The last moment from which a round ends in time; now, when that is over. */
  readonly latestMs: number;
  readonly keepsRpo: boolean;
  /** At the full rate all the time the mirror is complete before the need. */
  readonly keepsDeadline: boolean;
}

function factsOf(input: ScheduleInput, spans: readonly CeilingSpan[]): Facts {
  const { nowMs, terms, deadlineMs, dirtyBytes } = input;
  const rate = input.copyBytesPerSecond ?? PRIOR_BYTES_PER_S;
  const configuredMs = terms.resync_interval_ms;
  const rpoMs = deadlineMs === null ? configuredMs : Math.min(
    configuredMs,
    Math.max(Math.min(DEADLINE_RPO_MS_MIN, configuredMs), DEADLINE_SHARE * (deadlineMs - nowMs)),
  );
  const endingMs = Math.min(ENDING_MS, ENDING_SHARE * rpoMs);
  const endOf = (atMs: number) => {
    const bytes = Math.min(dirtyBytes + grownUntil(input, atMs), input.volumeBytes);
    return atMs + MARGIN * copyingMs(bytes, atMs, rate, spans) + endingMs;
  };
  const oldest = input.oldestWriteMs;
  const dueMs = oldest === null ? nowMs : oldest + rpoMs;
  const isLate = endOf(nowMs) > dueMs;
  return {
    rate,
    rpoMs,
    dueMs,
    endOf,
    latestMs: isLate ? nowMs : lastWithin(endOf, nowMs, dueMs),
    // Without the margin, and against what was configured: what is told is what is sure.
    keepsRpo: dirtyBytes === 0 || oldest === null ||
      nowMs + copyingMs(dirtyBytes, nowMs, rate, spans) <= oldest + configuredMs,
    keepsDeadline: deadlineMs === null || dirtyBytes === 0 ||
      nowMs + copyingMs(dirtyBytes, nowMs, rate, spans) <= deadlineMs,
  };
}

/** Bytes that become dirty from now until then, at the upper quantile where it is predicted. */
function grownUntil({ nowMs, predicted, ...input }: ScheduleInput, untilMs: number): number {
  let bytes = 0, atMs = nowMs;
  for (const step of predicted) {
    if (step.until_ms <= atMs) continue;
    if (step.from_ms >= untilMs) break;
    if (step.from_ms > atMs) {
      bytes += (step.from_ms - atMs) / 1000 * input.dirtyBytesPerSecond;
      atMs = step.from_ms;
    }
    const endMs = Math.min(step.until_ms, untilMs);
    bytes += (endMs - atMs) / 1000 * step.write_high_bytes_per_s * input.dirtyPerWritten;
    atMs = endMs;
  }
  return bytes + Math.max(0, untilMs - atMs) / 1000 * input.dirtyBytesPerSecond;
}

/** How long it takes to copy `bytes` from `fromMs` on, at `rate` and under the ceilings. */
function copyingMs(
  bytes: number,
  fromMs: number,
  rate: number,
  spans: readonly CeilingSpan[],
): number {
  let left = bytes, atMs = fromMs;
  for (const { untilMs, ceiling } of spans) {
    if (untilMs <= atMs) continue;
    const now = Math.max(1, Math.min(rate, ceiling ?? Infinity));
    const needMs = left / now * 1000;
    if (atMs + needMs <= untilMs) return atMs + needMs - fromMs;
    left -= (untilMs - atMs) / 1000 * now;
    atMs = untilMs;
  }
  return atMs - fromMs;
}

/** The last moment in [from, to] whose round ends by `to`; `endOf` never falls. */
function lastWithin(endOf: (atMs: number) => number, fromMs: number, toMs: number): number {
  let low = fromMs, high = toMs;
  for (let i = 0; i < BISECTIONS; i++) {
    const middle = (low + high) / 2;
    if (endOf(middle) <= toMs) low = middle;
    else high = middle;
  }
  return low;
}

interface Round {
  readonly atMs: number | null;
  readonly scopeBytes: number | null;
  readonly because: readonly Reason[];
}

function nextRound(input: ScheduleInput, facts: Facts): Round {
  const { nowMs, dirtyBytes, lastRound, oldestWriteMs, terms } = input;
  if (dirtyBytes === 0) {
    return { atMs: null, scopeBytes: null, because: [{ code: "clean", numbers: {} }] };
  }
  if (input.isCopying) return { atMs: null, scopeBytes: null, because: lateReasons(input, facts) };
  const all = (atMs: number, ...because: Reason[]): Round => ({ atMs, scopeBytes: null, because });
  if (oldestWriteMs === null) {
    return all(nowMs, { code: "incomplete", numbers: { dirty_bytes: dirtyBytes } });
  }
  const pauseMs = Math.min(PAUSE_MS_MAX, PAUSE_SHARE * facts.rpoMs);
  const soonestMs = Math.max(nowMs, lastRound === null ? nowMs : lastRound.endedMs + pauseMs);
  if (facts.latestMs <= soonestMs) {
    return all(soonestMs, ...lateReasons(input, facts), rpoReason(input, facts, soonestMs));
  }
  const calmMs = lastRound === null ? soonestMs : Math.max(
    soonestMs,
    lastRound.endedMs + Math.max(PAUSE_ROUNDS * lastRound.tookMs, PAUSE_SHARE * facts.rpoMs),
  );
  const better = betterTime(input, facts, calmMs);
  if (better !== undefined) return better;
  const isCalm = input.quietForMs >=
    Math.max(Math.min(SETTLED_MS_MIN, terms.resync_interval_ms), SETTLED_SHARE * facts.rpoMs);
  if (isCalm && calmMs < facts.latestMs) {
    const because: Reason[] = [{ code: "settled", numbers: { quiet_for_ms: input.quietForMs } }];
    if (calmMs > nowMs && lastRound !== null) {
      because.push({ code: "spacing", numbers: { took_ms: lastRound.tookMs } });
    }
    return all(calmMs, ...because);
  }
  return all(facts.latestMs, rpoReason(input, facts, facts.latestMs));
}

/** A moment before the last one that is predicted to be worth it; undefined: there is none. */
function betterTime(input: ScheduleInput, facts: Facts, fromMs: number): Round | undefined {
  const { predicted } = input, { latestMs, endOf, rate } = facts;
  const candidates = [
    fromMs,
    ...predicted.flatMap(({ from_ms, until_ms }) => [
      from_ms,
      // Such that the round ends when the step does.
      until_ms - (endOf(Math.max(fromMs, from_ms)) - Math.max(fromMs, from_ms)),
    ]),
  ].filter((atMs) => atMs >= fromMs && atMs < latestMs);
  const atLatest = meanLoad(predicted, latestMs, endOf(latestMs)) ??
    meanLoad(predicted, fromMs, Infinity);
  if (atLatest === undefined || candidates.length === 0) return undefined;
  const burst = burstAfter(input, fromMs, latestMs);
  const chosen = quietest(candidates, predicted, endOf);
  if (chosen !== undefined && chosen.load < atLatest * WORTH) {
    const numbers = { load_iops: chosen.load, load_latest_iops: atLatest };
    const because: Reason[] = [{ code: "quiet", numbers }];
    if (burst !== undefined) because.push(burst.reason);
    return { atMs: chosen.atMs, scopeBytes: scopeOf(input, facts, chosen.atMs, rate), because };
  }
  if (burst === undefined) return undefined;
  const beforeMs = burst.atMs - (endOf(fromMs) - fromMs);
  const atMs = Math.max(fromMs, beforeMs);
  return atMs < latestMs ? { atMs, scopeBytes: null, because: [burst.reason] } : undefined;
}

interface Quiet {
  readonly atMs: number;
  readonly load: number;
}

/**
 * Among the moments that are about as quiet as any: the last from which all of it is copied while it is quiet,
 * because what is written again before that is copied once; or the one with the longest quiet time ahead.
 */
function quietest(
  candidates: readonly number[],
  predicted: readonly LoadStep[],
  endOf: (atMs: number) => number,
): Quiet | undefined {
  const loads = candidates.flatMap((atMs) => {
    const untilMs = calmUntil(predicted, atMs), endMs = endOf(atMs);
    const load = meanLoad(predicted, atMs, Math.min(endMs, untilMs));
    return load === undefined
      ? []
      : [{ atMs, load, isWhole: endMs <= untilMs, calmMs: untilMs - atMs }];
  });
  const least = Math.min(...loads.map(({ load }) => load));
  const quiet = loads.filter(({ load }) => load <= least * ALIKE + 1e-9);
  const whole = quiet.filter(({ isWhole }) => isWhole);
  if (whole.length > 0) return whole.reduce((last, one) => one.atMs > last.atMs ? one : last);
  return quiet.reduce<typeof quiet[number] | undefined>(
    (best, one) => best === undefined || one.calmMs > best.calmMs ? one : best,
    undefined,
  );
}

/** The first step in the time that is left in which writes are a multiple of what they are now. */
function burstAfter(
  { predicted, terms }: ScheduleInput,
  fromMs: number,
  latestMs: number,
): { atMs: number; reason: Reason } | undefined {
  const now = predicted.find((step) => step.until_ms > fromMs);
  if (now === undefined) return undefined;
  const least = Math.max(now.write_bytes_per_s * BURST, terms.min_rate_bytes_per_s, 2 ** 20);
  const burst = predicted.find((step) =>
    step.from_ms > fromMs && step.from_ms < latestMs && step.write_bytes_per_s >= least
  );
  if (burst === undefined) return undefined;
  const numbers = {
    before_bytes_per_s: now.write_bytes_per_s,
    burst_bytes_per_s: burst.write_bytes_per_s,
  };
  return { atMs: burst.from_ms, reason: { code: "burst", numbers } };
}

/** Where the quiet time is too short for all of it: what fits, because the rest has time. */
function scopeOf(
  { predicted, ...input }: ScheduleInput,
  { endOf, latestMs }: Facts,
  atMs: number,
  rate: number,
): number | null {
  const untilMs = calmUntil(predicted, atMs);
  if (endOf(atMs) <= untilMs || untilMs >= latestMs) return null;
  return Math.min(input.dirtyBytes, Math.max(1, Math.floor((untilMs - atMs) / 1000 * rate)));
}

function rpoReason(input: ScheduleInput, { rpoMs, endOf }: Facts, atMs: number): Reason {
  const { dirtyBytes } = input;
  return {
    code: "rpo",
    numbers: { dirty_bytes: dirtyBytes, took_ms: endOf(atMs) - atMs, rpo_ms: rpoMs },
  };
}

function lateReasons(input: ScheduleInput, { keepsRpo, endOf, rate }: Facts): Reason[] {
  const { nowMs, oldestWriteMs, terms, dirtyBytes, dirtyBytesPerSecond } = input;
  if (keepsRpo) return [];
  const numbers = {
    lag_ms: endOf(nowMs) - (oldestWriteMs ?? nowMs),
    rpo_ms: terms.resync_interval_ms,
    dirty_bytes: dirtyBytes,
    dirty_bytes_per_s: dirtyBytesPerSecond,
    copy_bytes_per_s: rate,
  };
  return [{ code: "late", numbers }];
}

type Rates = Pick<ScheduleDecision, "floorBytesPerSecond" | "ceilingBytesPerSecond" | "because">;

/** Between which rates the copier may choose now. */
function ratesOf(input: ScheduleInput, facts: Facts, ceiling: number | null): Rates {
  const { nowMs, terms, dirtyBytes, deadlineMs, oldestWriteMs } = input;
  const because: Reason[] = [];
  const needs = [terms.min_rate_bytes_per_s];
  const leftBytes = dirtyBytes + input.unverifiedBytes;
  if (deadlineMs !== null && leftBytes > 0) {
    const leftMs = deadlineMs - nowMs;
    needs.push(urgent(leftBytes, leftMs));
    because.push(deadlineReason(input, facts, leftMs, ceiling));
  }
  if (oldestWriteMs !== null && dirtyBytes > 0) {
    const leftMs = facts.dueMs - nowMs;
    const withinMs = leftMs > 0
      ? Math.max(leftMs - RESERVE_SHARE * facts.rpoMs, HURRY_SHARE * facts.rpoMs)
      : CATCH_UP_SHARE * facts.rpoMs;
    needs.push(urgent(dirtyBytes, Math.max(withinMs, HURRY_MS_MIN)));
  }
  const keepsAll = facts.keepsRpo && facts.keepsDeadline;
  if (!keepsAll && ceiling !== null && ceiling < facts.rate) {
    because.push({ code: "ceiling", numbers: { ceiling_bytes_per_s: ceiling } });
  }
  if (ceiling !== terms.max_rate_bytes_per_s) {
    because.push({ code: "window", numbers: { ceiling_bytes_per_s: ceiling ?? Infinity } });
  }
  return {
    floorBytesPerSecond: Math.round(Math.min(Math.max(...needs), ceiling ?? Infinity)),
    ceilingBytesPerSecond: ceiling,
    because,
  };
}

/** The rate at which so much is copied in the time that is left; when that is over, as fast as may be. */
function urgent(bytes: number, leftMs: number): number {
  if (leftMs <= 0) return URGENT_BYTES_PER_S_MAX;
  return Math.min(URGENT_BYTES_PER_S_MAX, MARGIN * bytes / leftMs * 1000);
}

function deadlineReason(
  input: ScheduleInput,
  facts: Facts,
  left_ms: number,
  ceiling: number | null,
): Reason {
  if (facts.keepsDeadline) return { code: "deadline", numbers: { left_ms } };
  const numbers = {
    left_ms,
    dirty_bytes: input.dirtyBytes,
    copy_bytes_per_s: Math.min(facts.rate, ceiling ?? Infinity),
  };
  return { code: "too-slow", numbers };
}
