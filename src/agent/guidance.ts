/**
 * What the mirror's schedule is told after each evaluation and when an order begins: when the larger volume will be needed, how the
 * application is predicted to read and write, and the terms as they are configured now.
 *
 * Without a forecast there are no steps, and the data plane goes by what it measures itself.
 */
import { toPsmaError } from "../core/mod.ts";
import type { GuideMirror, LoadStep, VolumeStatus } from "../dataplane/mod.ts";
import type { Forecast, Forecaster, Metric } from "../forecast/mod.ts";
import { termsOf } from "./backup.ts";
import type { AgentContext } from "./context.ts";
import type { Plan } from "./views.ts";
import type { VolumeUnit } from "./volume_unit.ts";

/** Rounds of the next two RPOs and the hour ahead are what the schedule can choose among. */
const HORIZON_RPOS = 2, HORIZON_MS_MIN = 3_600_000, HORIZON_MS_MAX = 86_400_000;
/** Each takes three fits: so often at most, and at least so many times in a horizon. */
const REFRESH_MS_MIN = 300_000, REFRESHES_PER_HORIZON = 8;
/** Guidance outlives this many evaluations that did not take place. */
const VALID_EVALUATIONS = 3;
const MEDIAN = 0.5, HIGH = 0.9;

/** Forecasts of one volume, on the same steps. */
export interface LoadForecasts {
  /** Levels 0.5 and 0.9. */
  readonly write_bytes: Forecast;
  readonly write_iops: Forecast;
  readonly read_iops: Forecast;
}

/** Joins what was forecast of each metric. Pure. A step holds from the one before it to its own time. */
export function loadSteps({ write_bytes, write_iops, read_iops }: LoadForecasts): LoadStep[] {
  const { levels, step_ms } = write_bytes;
  const at = (forecast: Forecast, level: number, index: number) => {
    const column = forecast.levels.indexOf(level);
    return Math.max(0, forecast.steps[index]?.values[column] ?? 0);
  };
  if (!levels.includes(MEDIAN) || !levels.includes(HIGH)) return [];
  return write_bytes.steps.map(({ at_ms }, index) => ({
    from_ms: at_ms - step_ms,
    until_ms: at_ms,
    write_bytes_per_s: at(write_bytes, MEDIAN, index),
    write_high_bytes_per_s: at(write_bytes, HIGH, index),
    load_iops: at(write_iops, MEDIAN, index) + at(read_iops, MEDIAN, index),
  }));
}

export interface Needs {
  readonly plan: Pick<Plan, "at" | "numbers"> | undefined;
  /** When an operator wants it done, RFC 3339. */
  readonly wanted_at: string | undefined;
  /** What a switch took last. */
  readonly switch_ms: number | null;
  readonly safety_ms: number;
}

/**
 * When the mirror must be complete: before the time at which the plan's quantile says that the volume is full,
 * by what the switch takes and by what was asked for; and before the time that an operator named. Pure.
 * @returns wall time, perhaps in the past; null when no need is in sight.
 */
export function deadlineOf({ plan, wanted_at, switch_ms, safety_ms }: Needs): number | null {
  const full_in_ms = plan?.numbers["full_in_ms"] ?? null, needs: number[] = [];
  if (plan !== undefined && full_in_ms !== null) {
    const lead_ms = plan.numbers["switch_lead_ms"] ?? 0;
    needs.push(Date.parse(plan.at) + full_in_ms - lead_ms - safety_ms);
  }
  if (wanted_at !== undefined) needs.push(Date.parse(wanted_at) - (switch_ms ?? 0));
  return needs.length === 0 ? null : Math.min(...needs);
}

/** Tells the mirror, or the one that leads back. Never throws: without guidance a mirror goes its way. */
export async function guideMirror(context: AgentContext, unit: VolumeUnit): Promise<void> {
  const { catalogue, clock, config, log, plane } = context, { name } = unit;
  try {
    const status = await plane.command("volumeStatus", { name });
    if (!isGuided(status)) return;
    const { intent, measured } = catalogue.get(name), now_ms = clock.nowMs();
    const { deadline_safety_ms } = unit.config.mirror;
    const guidance: GuideMirror = {
      volume: name,
      terms: termsOf(unit.config.mirror),
      valid_until_ms: now_ms + VALID_EVALUATIONS * config.forecast.interval_ms,
      // Nobody waits for a backup.
      deadline_ms: status.mirror === null ? null : deadlineOf({
        plan: unit.plan,
        wanted_at: intent?.deadline_at,
        switch_ms: measured.switch_ms,
        safety_ms: deadline_safety_ms,
      }),
      steps: (unit.predicted_load?.steps ?? []).filter(({ until_ms }) => until_ms > now_ms),
    };
    await plane.command("guideMirror", guidance);
  } catch (error) {
    const { code, message } = toPsmaError(error);
    log.debug("the mirror is not guided", { volume: name, code, reason: message });
  }
}

/** There is a mirror, or one that leads back. */
function isGuided({ mirror, backup_status }: VolumeStatus): boolean {
  return mirror !== null || (backup_status !== null && backup_status.state !== "frozen");
}

/** Asks how the application will read and write, where somebody is to be told and the last answer is old. */
export async function refreshLoad(
  context: AgentContext,
  forecaster: Forecaster,
  unit: VolumeUnit,
  status: VolumeStatus,
): Promise<void> {
  if (!isGuided(status)) return;
  const { clock, log } = context, asked_ms = clock.monotonicMs();
  const horizon_ms = Math.min(
    HORIZON_MS_MAX,
    Math.max(HORIZON_MS_MIN, HORIZON_RPOS * unit.config.mirror.rpo_ms),
  );
  const refresh_ms = Math.max(REFRESH_MS_MIN, horizon_ms / REFRESHES_PER_HORIZON);
  const known = unit.predicted_load;
  if (known !== undefined && asked_ms - known.asked_ms < refresh_ms) return;
  const ask = (metric: Metric, levels: readonly number[]) =>
    forecaster.forecast({ volume: unit.name, metric, horizon_ms, levels });
  let steps: readonly LoadStep[] = [];
  try {
    steps = loadSteps({
      write_bytes: await ask("write_bytes_per_s", [MEDIAN, HIGH]),
      write_iops: await ask("write_iops", [MEDIAN]),
      read_iops: await ask("read_iops", [MEDIAN]),
    });
  } catch (error) {
    const { code, message } = toPsmaError(error);
    log.debug("no forecast of the load", { volume: unit.name, code, reason: message });
  }
  unit.predicted_load = { steps, asked_ms };
}
