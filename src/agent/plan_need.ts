/** The arithmetic behind a plan: what will be needed, by when it must be there, and how large it should be. */
import { roundUp } from "../core/mod.ts";
import type { Forecast } from "../forecast/mod.ts";
import type { ScaleConfig } from "./config_volume.ts";

const MIB = 1024 ** 2;
const GIB = 1024 ** 3;
const BLOCK_BYTES = 4096;

/** What a scaling event took when it was last measured; null until then. */
export interface Measured {
  readonly sync_rate_bytes_per_s: number | null;
  readonly provision_ms: number | null;
  readonly switch_ms: number | null;
}

/** Assumed until measured: a slow disk behind a 1 Gbit/s network. */
const PRIOR = {
  sync_rate_bytes_per_s: 50 * MIB,
  provision_ms: 2_000,
  switch_ms: 2_000,
} as const;

/** Digests are checked while bytes are copied; what is left of it at the end is a tenth of the copying. */
const VERIFY_SHARE = 0.1;

export interface Lead {
  readonly provision_ms: number;
  readonly sync_ms: number;
  readonly verify_ms: number;
  readonly switch_ms: number;
  readonly safety_ms: number;
  readonly total_ms: number;
}

/** The time from "start a mirror" to "the larger volume is in use". @param copyBytes what a first sync copies. */
export function leadTime(copyBytes: number, measured: Measured, safetyMs: number): Lead {
  const rate = measured.sync_rate_bytes_per_s ?? PRIOR.sync_rate_bytes_per_s;
  const provision_ms = measured.provision_ms ?? PRIOR.provision_ms;
  const switch_ms = measured.switch_ms ?? PRIOR.switch_ms;
  const sync_ms = copyBytes / rate * 1000;
  const verify_ms = sync_ms * VERIFY_SHARE;
  const total_ms = provision_ms + sync_ms + verify_ms + switch_ms + safetyMs;
  return { provision_ms, sync_ms, verify_ms, switch_ms, safety_ms: safetyMs, total_ms };
}

/** A step's value at `level`, between two levels in proportion, at the ends the end's. */
function atLevel(levels: readonly number[], values: readonly number[], level: number): number {
  const above = levels.findIndex((one) => one >= level - 1e-9);
  if (above <= 0) return values[above === 0 ? 0 : values.length - 1] ?? 0;
  const [low, high] = [levels[above - 1] ?? 0, levels[above] ?? 1];
  const [from, to] = [values[above - 1] ?? 0, values[above] ?? 0];
  return from + (to - from) * Math.min(1, (level - low) / (high - low));
}

/**
 * The most that the forecast's quantile path reaches from now until `untilMs`, and never less than what
 * is there now: a volume must hold its peak, not its end.
 * A path of marginal quantiles, so not a first-passage probability; the threshold's margin covers that.
 * @param now the measured value at `at_ms`. @returns in the forecast's unit.
 */
export function peakUntil(
  forecast: Forecast,
  level: number,
  now: { at_ms: number; value: number },
  untilMs: number,
): number {
  let peak = now.value;
  let before = now;
  for (const step of forecast.steps) {
    if (step.at_ms <= now.at_ms) continue;
    const value = atLevel(forecast.levels, step.values, level);
    if (step.at_ms > untilMs) {
      const share = (untilMs - before.at_ms) / (step.at_ms - before.at_ms);
      return Math.max(peak, before.value + (value - before.value) * Math.max(0, share));
    }
    peak = Math.max(peak, value);
    before = { at_ms: step.at_ms, value };
  }
  return peak;
}

/** When the quantile path first reaches `limit`; null when not within the forecast. */
export function reachedAt(
  forecast: Forecast,
  level: number,
  now: { at_ms: number; value: number },
  limit: number,
): number | null {
  if (now.value >= limit) return now.at_ms;
  let before = now;
  for (const step of forecast.steps) {
    if (step.at_ms <= now.at_ms) continue;
    const value = atLevel(forecast.levels, step.values, level);
    if (value >= limit) {
      const share = (limit - before.value) / (value - before.value);
      return before.at_ms + (step.at_ms - before.at_ms) * share;
    }
    before = { at_ms: step.at_ms, value };
  }
  return null;
}

/**
 * The size of the next volume: room for the need below the threshold, at least one step and at most
 * `max_step` of growth, rounded up to a size that people would choose, never above the cap.
 * @param need bytes used at the horizon. @param overhead volume size over usable size, 1 and up.
 * @returns bytes, a multiple of 4096; not above `size_bytes` when the cap leaves no room.
 */
export function targetSize(
  { size_bytes, max_size_bytes, need, overhead, policy }: {
    size_bytes: number;
    max_size_bytes: number;
    need: number;
    overhead: number;
    policy: Pick<ScaleConfig, "threshold" | "step" | "max_step">;
  },
): number {
  const wanted = need * overhead / policy.threshold;
  const least = size_bytes * (1 + policy.step);
  const most = Math.max(least, size_bytes * (1 + policy.max_step));
  const target = Math.min(Math.max(wanted, least), most);
  const cap = Math.floor(max_size_bytes / BLOCK_BYTES) * BLOCK_BYTES;
  return Math.min(roundUp(target, granule(target)), cap);
}

/** A power of two of about a thirty-second of the size, from 1 MiB to 1 GiB. */
function granule(bytes: number): number {
  return Math.min(Math.max(2 ** Math.floor(Math.log2(bytes / 32)), MIB), GIB);
}
