/**
 * The planner: what the agent would do with one volume now, and why. A pure function; the agent acts on
 * its answer and remembers what it says to remember.
 *
 * A mirror is started ahead of time, when the forecast's upper quantile says that the volume passes its
 * threshold before a larger one could be ready. The switch waits until it is needed. Where the forecast
 * is absent, old or known to be wrong, the measured use alone decides.
 *
 * The cool-down damps what the forecast asks for and nothing else: a volume whose measured use is at its
 * threshold is on its way to being full, and that must never wait.
 */
import { formatDuration, formatSize } from "../core/mod.ts";
import type { MirrorStatus } from "../dataplane/mod.ts";
import type { Forecast } from "../forecast/mod.ts";
import type { ScaleConfig } from "./config_volume.ts";
import {
  type Lead,
  leadTime,
  type Measured,
  peakUntil,
  reachedAt,
  targetSize,
} from "./plan_need.ts";
import type { Plan, PlanAction } from "./views.ts";

/** What one evaluation leaves for the next. */
export interface PlanMemory {
  readonly last_scale_at_ms: number | null;
  /** Evaluations in a row in which the forecast asked for a mirror. */
  readonly mirror_trips: number;
  /** Evaluations in a row in which the forecast asked for the switch. */
  readonly switch_trips: number;
}

export const NO_MEMORY: PlanMemory = { last_scale_at_ms: null, mirror_trips: 0, switch_trips: 0 };

export interface PlanInput {
  readonly volume: string;
  readonly now_ms: number;
  readonly policy: ScaleConfig;
  readonly horizon_ms: number;
  /** Size of the block volume. */
  readonly size_bytes: number;
  readonly max_size_bytes: number;
  /** What can be filled: the file system's size, or the volume's where there is none. */
  readonly usable_bytes: number;
  readonly used_bytes: number;
  /** What a first sync has to copy. */
  readonly copy_bytes: number;
  /** Of used bytes; null before there is one. */
  readonly forecast: Forecast | null;
  readonly mirror: MirrorStatus | null;
  readonly measured: Measured;
  /** A sentence: why a larger volume would not help now; null when nothing is in the way. */
  readonly obstacle: string | null;
  readonly memory: PlanMemory;
}

export interface Evaluation {
  readonly plan: Plan;
  readonly memory: PlanMemory;
}

/** Once tripped, the forecast must fall this far below the threshold, as a share of the usable size. */
const HYSTERESIS_SHARE = 0.05;
/** An 80 % interval that held fewer than half of the values is no ground to act on. */
const COVERAGE_LEAST = 0.5;
const COVERAGE_WINDOWS_LEAST = 8;
const FORECAST_STALE_MS = 600_000;

/** Everything that decisions are taken from, worked out once. */
interface Facts {
  readonly lead: Lead;
  readonly switch_lead_ms: number;
  readonly threshold_bytes: number;
  readonly cooldown_remaining_ms: number;
  /** Peaks of the upper quantile path; equal to the use without a forecast to trust. */
  readonly need_at_lead_bytes: number;
  readonly need_at_switch_lead_bytes: number;
  readonly need_at_horizon_bytes: number;
  readonly full_at_ms: number | null;
  readonly target_bytes: number;
  readonly distrust: string | undefined;
  /** The measured use is at the threshold. */
  readonly too_full: boolean;
  readonly mirror_trip: boolean;
  readonly switch_trip: boolean;
  readonly mirror_trips: number;
  readonly switch_trips: number;
}

interface Decision {
  readonly action: PlanAction;
  readonly because: readonly string[];
}

/** Decides what to do with one volume. Pure: the same input, the same answer. */
export function planVolume(input: PlanInput): Evaluation {
  const facts = factsOf(input);
  const { action, because } = approved(input, decide(input, facts));
  const acting = action !== "none" && action !== "wait";
  const target = input.mirror?.target.size_bytes ?? facts.target_bytes;
  return {
    plan: {
      volume: input.volume,
      at: new Date(input.now_ms).toISOString(),
      action,
      because: [...because, ...context(input, facts)],
      numbers: inWholeUnits(numbersOf(input, facts)),
      target_size_bytes: acting && action !== "blocked" ? target : null,
    },
    memory: {
      last_scale_at_ms: input.memory.last_scale_at_ms,
      mirror_trips: facts.mirror_trips,
      switch_trips: facts.switch_trips,
    },
  };
}

function factsOf(input: PlanInput): Facts {
  const { policy, measured, memory, mirror, now_ms, used_bytes, usable_bytes } = input;
  const lead = leadTime(input.copy_bytes, measured, policy.safety_ms);
  const converge = leadTime(mirror?.dirty_bytes ?? 0, measured, policy.safety_ms);
  const switch_lead_ms = converge.total_ms - converge.provision_ms;
  const threshold_bytes = policy.threshold * usable_bytes;
  const cooldown_remaining_ms = memory.last_scale_at_ms === null
    ? 0
    : Math.max(0, memory.last_scale_at_ms + policy.cooldown_ms - now_ms);
  const distrust = reasonToDistrust(input.forecast, now_ms);
  const trusted = distrust === undefined ? input.forecast : null;
  const now = { at_ms: now_ms, value: used_bytes };
  const peak = (within_ms: number) =>
    trusted === null ? used_bytes : peakUntil(trusted, policy.level, now, now_ms + within_ms);
  const need_at_lead_bytes = peak(lead.total_ms + cooldown_remaining_ms);
  const need_at_switch_lead_bytes = peak(switch_lead_ms);
  const need_at_horizon_bytes = peak(Math.max(input.horizon_ms, lead.total_ms));
  const margin = memory.mirror_trips > 0 ? HYSTERESIS_SHARE * usable_bytes : 0;
  const forecast_trip = trusted !== null && need_at_lead_bytes >= threshold_bytes - margin;
  const full_trip = trusted !== null && need_at_switch_lead_bytes >= usable_bytes;
  return {
    lead,
    switch_lead_ms,
    threshold_bytes,
    cooldown_remaining_ms,
    need_at_lead_bytes,
    need_at_switch_lead_bytes,
    need_at_horizon_bytes,
    full_at_ms: trusted === null ? null : reachedAt(trusted, policy.level, now, usable_bytes),
    target_bytes: targetSize({
      size_bytes: input.size_bytes,
      max_size_bytes: input.max_size_bytes,
      need: need_at_horizon_bytes,
      overhead: Math.max(1, input.size_bytes / Math.max(1, usable_bytes)),
      policy,
    }),
    distrust,
    too_full: used_bytes >= threshold_bytes,
    mirror_trip: forecast_trip && memory.mirror_trips + 1 >= policy.debounce_evaluations,
    switch_trip: full_trip && memory.switch_trips + 1 >= policy.debounce_evaluations,
    mirror_trips: forecast_trip ? memory.mirror_trips + 1 : 0,
    switch_trips: full_trip ? memory.switch_trips + 1 : 0,
  };
}

/** A forecast that must not start anything by itself, and why. */
function reasonToDistrust(forecast: Forecast | null, nowMs: number): string | undefined {
  if (forecast === null) return "There is no forecast yet, so only the measured use decides.";
  const age = nowMs - forecast.origin_ms;
  if (age > Math.max(FORECAST_STALE_MS, 2 * forecast.step_ms)) {
    return `The forecast is ${formatDuration(age)} old, so only the measured use decides.`;
  }
  const { coverage80, windows } = forecast.backtest;
  if (coverage80 !== null && windows >= COVERAGE_WINDOWS_LEAST && coverage80 < COVERAGE_LEAST) {
    const held = Math.round(100 * coverage80);
    return `The forecast's 80% interval held only ${held}% of what came, so only the measured use decides.`;
  }
  return undefined;
}

function decide(input: PlanInput, facts: Facts): Decision {
  const state = input.mirror?.state;
  switch (state) {
    case undefined:
      return decideMirror(input, facts);
    case "failed":
      return facts.too_full || facts.mirror_trip
        ? start(
          input,
          facts,
          `The mirror failed (${input.mirror?.reason ?? "no reason"}): start again.`,
        )
        : {
          action: "none",
          because: [`The mirror failed: ${input.mirror?.reason ?? "no reason"}.`],
        };
    case "paused":
      return decidePaused(input, facts);
    case "requested":
    case "syncing":
      return { action: "wait", because: [`The mirror is on its way (${state}).`] };
    case "switching":
      return { action: "wait", because: ["The switch is under way."] };
    default:
      return decideSwitch(input, facts);
  }
}

/** A pause is a person's wish and is kept; that the volume fills up meanwhile is said aloud. */
function decidePaused(input: PlanInput, facts: Facts): Decision {
  const paused = `The mirror is paused: ${input.mirror?.reason ?? "by hand"}.`;
  if (!facts.too_full && !facts.switch_trip) return { action: "wait", because: [paused] };
  const why = facts.too_full ? tooFull(input, facts) : willBeFull(input, facts);
  const next = "Nothing is done before psma mirror resume, or psma mirror cancel.";
  return { action: "blocked", because: [`${why} ${paused} ${next}`] };
}

function decideMirror(input: PlanInput, facts: Facts): Decision {
  const { policy } = input;
  if (facts.too_full) return start(input, facts, tooFull(input, facts));
  if (facts.mirror_trip) return start(input, facts, willBeTooFull(input, facts));
  if (facts.mirror_trips > 0) {
    const wait = `Seen ${facts.mirror_trips} of ${policy.debounce_evaluations} times in a row.`;
    return { action: "wait", because: [willBeTooFull(input, facts), wait] };
  }
  return {
    action: "none",
    because: ["There is room enough for the time that a larger volume takes."],
  };
}

/** A mirror is wanted: when the size cap lets it be and, for a forecast's wish, the cool-down. */
function start(input: PlanInput, facts: Facts, why: string): Decision {
  if (input.obstacle !== null) return { action: "blocked", because: [why, input.obstacle] };
  const remaining = facts.cooldown_remaining_ms;
  if (facts.target_bytes <= input.size_bytes) {
    const cap = `It is at its cap of ${
      formatSize(input.max_size_bytes)
    }: raise max_size or free space.`;
    return { action: "blocked", because: [why, cap] };
  }
  if (facts.too_full) return { action: "scale", because: [why, ...overridden(remaining)] };
  // Inside the last lead time of a cool-down the mirror is made; the switch waits for its end.
  return remaining > facts.lead.total_ms
    ? { action: "wait", because: [why, coolingDown(remaining)] }
    : { action: "mirror", because: [why] };
}

function decideSwitch(input: PlanInput, facts: Facts): Decision {
  const wanted = facts.too_full || facts.switch_trip;
  const why = facts.too_full ? tooFull(input, facts) : willBeFull(input, facts);
  if (wanted && input.obstacle !== null) {
    return { action: "blocked", because: [why, input.obstacle] };
  }
  const remaining = facts.cooldown_remaining_ms;
  if (wanted && remaining > 0 && !facts.too_full) {
    return { action: "wait", because: [why, coolingDown(remaining)] };
  }
  if (wanted) {
    return {
      action: "switch",
      because: [why, "The mirror is complete.", ...overridden(remaining)],
    };
  }
  return { action: "wait", because: ["The mirror is complete and waits until it is needed."] };
}

function approved(input: PlanInput, decision: Decision): Decision {
  const changes = ["mirror", "scale", "switch"].includes(decision.action);
  if (!changes || input.policy.approve === "auto") return decision;
  const advice = `It would ${decision.action} now; the configuration says approve: advise.`;
  return { action: "advise", because: [...decision.because, advice] };
}

function tooFull(input: PlanInput, { threshold_bytes }: Facts): string {
  const { used_bytes, policy } = input;
  return `${formatSize(used_bytes)} are used: at or above the threshold of ${
    percent(policy.threshold)
  } (${formatSize(threshold_bytes)}).`;
}

function willBeTooFull(input: PlanInput, facts: Facts): string {
  const { policy } = input;
  return `The ${percent(policy.level)} forecast reaches ${
    formatSize(facts.need_at_lead_bytes)
  } within the lead time of ${formatDuration(facts.lead.total_ms)}; the threshold is ${
    formatSize(facts.threshold_bytes)
  } (${percent(policy.threshold)}).`;
}

function willBeFull({ policy }: PlanInput, { switch_lead_ms }: Facts): string {
  return `The ${percent(policy.level)} forecast fills it within the ${
    formatDuration(switch_lead_ms)
  } that a switch may take.`;
}

function coolingDown(remainingMs: number): string {
  return `The cool-down after the last scaling event lasts ${formatDuration(remainingMs)} more.`;
}

/** What is measured does not wait: said where somebody might wonder. */
function overridden(remainingMs: number): string[] {
  if (remainingMs === 0) return [];
  const left = formatDuration(remainingMs);
  return [
    `The cool-down has ${left} left, but it holds back only what the forecast alone asks for.`,
  ];
}

/** What a person wants to see under any decision. */
function context(input: PlanInput, facts: Facts): string[] {
  const { used_bytes, usable_bytes, policy, now_ms } = input;
  const share = percent(used_bytes / Math.max(1, usable_bytes));
  const lines = [`${formatSize(used_bytes)} of ${formatSize(usable_bytes)} are used (${share}).`];
  if (facts.distrust !== undefined) return [...lines, facts.distrust];
  const level = percent(policy.level);
  lines.push(
    facts.full_at_ms === null
      ? `At the ${level} level it does not fill within the horizon.`
      : `At the ${level} level it is full in ${formatDuration(facts.full_at_ms - now_ms)}.`,
  );
  return lines;
}

function percent(fraction: number): string {
  return `${Number((100 * fraction).toFixed(1))}%`;
}

/** There are no parts of a byte or, for a plan, of a millisecond; shares keep theirs. */
function inWholeUnits(numbers: Record<string, number | null>): Record<string, number | null> {
  return Object.fromEntries(
    Object.entries(numbers).map(([name, value]) => {
      const whole = /_(bytes|ms|bytes_per_s)$/.test(name);
      return [name, value === null || !whole ? value : Math.round(value)];
    }),
  );
}

function numbersOf(input: PlanInput, facts: Facts): Record<string, number | null> {
  const { lead } = facts;
  return {
    used_bytes: input.used_bytes,
    usable_bytes: input.usable_bytes,
    size_bytes: input.size_bytes,
    max_size_bytes: input.max_size_bytes,
    threshold_bytes: facts.threshold_bytes,
    level: input.policy.level,
    need_at_lead_bytes: facts.need_at_lead_bytes,
    need_at_switch_lead_bytes: facts.need_at_switch_lead_bytes,
    need_at_horizon_bytes: facts.need_at_horizon_bytes,
    target_bytes: facts.target_bytes,
    copy_bytes: input.copy_bytes,
    sync_rate_bytes_per_s: input.measured.sync_rate_bytes_per_s,
    provision_ms: lead.provision_ms,
    sync_ms: lead.sync_ms,
    verify_ms: lead.verify_ms,
    switch_ms: lead.switch_ms,
    safety_ms: lead.safety_ms,
    lead_ms: lead.total_ms,
    switch_lead_ms: facts.switch_lead_ms,
    horizon_ms: input.horizon_ms,
    cooldown_remaining_ms: facts.cooldown_remaining_ms,
    full_in_ms: facts.full_at_ms === null ? null : facts.full_at_ms - input.now_ms,
    probability_within_horizon: input.forecast?.time_to_limit?.probability_within_horizon ?? null,
    coverage80: input.forecast?.backtest.coverage80 ?? null,
    mirror_trips: facts.mirror_trips,
    switch_trips: facts.switch_trips,
    debounce_evaluations: input.policy.debounce_evaluations,
    mirror_dirty_bytes: input.mirror?.dirty_bytes ?? null,
  };
}
