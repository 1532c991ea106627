/**
 * What the mirror's schedule is told after each evaluation: when the larger volume will be needed, how the
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

/**
 * When the mirror must be complete: the time at which the plan's quantile says that the volume is full, less
 * what the switch takes and what was asked for. Pure. @returns wall time; null when no need is in sight.
 */
export function deadlineOf(
  plan: Pick<Plan, "numbers"> | undefined,
  { now_ms, safety_ms }: { now_ms: number; safety_ms: number },
): number | null {
  const full_in_ms = plan?.numbers["full_in_ms"] ?? null;
  if (full_in_ms === null) return null;
  return now_ms + full_in_ms - (plan?.numbers["switch_lead_ms"] ?? 0) - safety_ms;
}

/** Tells the mirror, or the one that leads back. Never throws: without guidance a mirror goes its way. */
export async function guideMirror(
  context: AgentContext,
  forecaster: Forecaster,
  unit: VolumeUnit,
  status: VolumeStatus,
): Promise<void> {
  const { clock, config, log, plane } = context;
  const isFollowed = status.backup_status !== null && status.backup_status.state !== "frozen";
  if (status.mirror === null && !isFollowed) return;
  try {
    const load = await predictedLoad(context, forecaster, unit);
    const now_ms = clock.nowMs();
    const { deadline_safety_ms } = unit.config.mirror;
    const guidance: GuideMirror = {
      volume: unit.name,
      terms: termsOf(unit.config.mirror),
      valid_until_ms: now_ms + VALID_EVALUATIONS * config.forecast.interval_ms,
      // Nobody waits for a backup.
      deadline_ms: status.mirror === null
        ? null
        : deadlineOf(unit.plan, { now_ms, safety_ms: deadline_safety_ms }),
      steps: load.filter(({ until_ms }) => until_ms > now_ms),
    };
    await plane.command("guideMirror", guidance);
  } catch (error) {
    const { code, message } = toPsmaError(error);
    log.debug("the mirror is not guided", { volume: unit.name, code, reason: message });
  }
}

async function predictedLoad(
  context: AgentContext,
  forecaster: Forecaster,
  unit: VolumeUnit,
): Promise<readonly LoadStep[]> {
  const { clock, log } = context, asked_ms = clock.monotonicMs();
  const horizon_ms = Math.min(
    HORIZON_MS_MAX,
    Math.max(HORIZON_MS_MIN, HORIZON_RPOS * unit.config.mirror.rpo_ms),
  );
  const refresh_ms = Math.max(REFRESH_MS_MIN, horizon_ms / REFRESHES_PER_HORIZON);
  const known = unit.predicted_load;
  if (known !== undefined && asked_ms - known.asked_ms < refresh_ms) return known.steps;
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
  return steps;
}
