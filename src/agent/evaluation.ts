/** One evaluation of one volume: ask the forecaster, plan, and do what the plan says. */
import { toPsmaError } from "../core/mod.ts";
import type { VolumeStatus } from "../dataplane/mod.ts";
import type { Forecast, Forecaster } from "../forecast/mod.ts";
import { refreshAllocated } from "./allocation.ts";
import { settleGrowth } from "./backup.ts";
import type { AgentContext } from "./context.ts";
import { growthObstacle } from "./growth.ts";
import { guideMirror, refreshLoad } from "./guidance.ts";
import { type Evaluation, planVolume } from "./plan.ts";
import { beginMirror, beginScale, beginSwitch } from "./scaling.ts";
import { growUnit, sweepLeftovers } from "./serving.ts";
import type { Plan } from "./views.ts";
import type { VolumeUnit } from "./volume_unit.ts";

const LEVELS = [0.1, 0.5, 0.9] as const;
const BACKOFF_MAX_MS = 1_800_000;

/** What a volume can hold, and what its fill is measured against: bytes. */
export function usableBytes(
  unit: VolumeUnit,
  { size_bytes }: Pick<VolumeStatus, "size_bytes">,
): number {
  const use = unit.observation?.filesystem;
  return use ? use.used_bytes + use.available_bytes : size_bytes;
}

/** Forecasts used bytes against the usable size. @returns undefined where the history is too short. */
export async function forecastUse(
  context: AgentContext,
  forecaster: Forecaster,
  unit: VolumeUnit,
  limit: number,
): Promise<Forecast | undefined> {
  const { config, log } = context;
  const levels = [...new Set([...LEVELS, unit.config.scale.level])].sort((a, b) => a - b);
  try {
    return await forecaster.forecast({
      volume: unit.name,
      metric: "used_bytes",
      horizon_ms: config.forecast.horizon_ms,
      levels,
      limit,
    });
  } catch (error) {
    const { code, message } = toPsmaError(error);
    const fields = { volume: unit.name, code, reason: message };
    if (code === "forecast/short-history") log.debug("no forecast yet", fields);
    else log.warn("no forecast", fields);
    return undefined;
  }
}

/** Plans from a forecast and what is known now. Changes nothing. */
export function planUnit(
  context: AgentContext,
  unit: VolumeUnit,
  status: VolumeStatus,
  forecast: Forecast | undefined,
): Evaluation {
  const { catalogue, clock, config } = context;
  const { measured, last_scale_at_ms } = catalogue.get(unit.name);
  const used_bytes = unit.observation?.used_bytes ?? 0;
  const allocated = status.allocated_bytes ?? unit.allocated_at_store ?? used_bytes;
  return planVolume({
    volume: unit.name,
    now_ms: clock.nowMs(),
    policy: unit.config.scale,
    horizon_ms: config.forecast.horizon_ms,
    size_bytes: status.size_bytes,
    max_size_bytes: unit.config.max_size_bytes,
    usable_bytes: usableBytes(unit, status),
    used_bytes,
    copy_bytes: Math.min(allocated, status.size_bytes),
    forecast: forecast ?? null,
    mirror: status.mirror,
    measured,
    obstacle: growthObstacle(unit),
    memory: {
      last_scale_at_ms,
      mirror_trips: unit.mirror_trips,
      switch_trips: unit.switch_trips,
    },
  });
}

/** Forecasts, plans, remembers and acts. */
export async function evaluateUnit(
  context: AgentContext,
  forecaster: Forecaster,
  unit: VolumeUnit,
): Promise<void> {
  await tidyUp(context, unit);
  const status = await context.plane.command("volumeStatus", { name: unit.name });
  await refreshAllocated(context, unit, status);
  if (!unit.observation) return;
  // Fitting takes a while; what the measured use asks for does not wait for it.
  if (await actOnMeasuredUse(context, unit, status)) return await guideMirror(context, unit);
  unit.forecast = await forecastUse(context, forecaster, unit, usableBytes(unit, status));
  const now = await context.plane.command("volumeStatus", { name: unit.name });
  const { plan, memory } = planUnit(context, unit, now, unit.forecast);
  unit.mirror_trips = memory.mirror_trips;
  unit.switch_trips = memory.switch_trips;
  await follow(context, unit, plan);
  await refreshLoad(context, forecaster, unit, now);
  await guideMirror(context, unit);
}

/** @returns whether there was something to do, which then is done or refused. */
async function actOnMeasuredUse(
  context: AgentContext,
  unit: VolumeUnit,
  status: VolumeStatus,
): Promise<boolean> {
  const { plan } = planUnit(context, unit, status, unit.forecast);
  if (!isTooFull(plan) || (plan.action !== "scale" && plan.action !== "switch")) return false;
  await follow(context, unit, plan);
  return true;
}

async function follow(context: AgentContext, unit: VolumeUnit, plan: Plan): Promise<void> {
  const before = unit.plan;
  unit.plan = plan;
  if (before?.action !== plan.action) announce(context, plan);
  await act(context, unit, plan);
}

/** What earlier failures left to be done. */
async function tidyUp(context: AgentContext, unit: VolumeUnit): Promise<void> {
  await sweepLeftovers(context, unit);
  const { grow_pending, intent } = context.catalogue.get(unit.name);
  if (!grow_pending || intent) return;
  await settleGrowth(context, unit);
  await growUnit(context, unit);
}

/** The measured use has reached the threshold, whatever the forecast says. */
function isTooFull({ numbers }: Plan): boolean {
  return (numbers["used_bytes"] ?? 0) >= (numbers["threshold_bytes"] ?? Infinity);
}

function announce({ events }: AgentContext, plan: Plan) {
  const { volume, action, because, numbers, target_size_bytes } = plan;
  const why = because[0] ?? "";
  const wants = action === "mirror" || action === "scale" || action === "advise";
  const tripped = isTooFull(plan) ? "threshold.reached" : "forecast.tripped";
  const numeric = Object.fromEntries(
    ["level", "need_at_lead_bytes", "lead_ms", "used_bytes", "threshold_bytes", "full_in_ms"]
      .map((name) => [name, numbers[name] ?? null]),
  );
  events.add({
    type: wants ? tripped : "plan.changed",
    severity: action === "blocked" || action === "advise" ? "warning" : "info",
    volume,
    message: `${volume}: ${action}. ${why}`,
    data: { action, target_size_bytes, ...numeric },
  });
}

async function act(context: AgentContext, unit: VolumeUnit, plan: Plan): Promise<void> {
  const { clock, catalogue } = context;
  const acts = { mirror: beginMirror, scale: beginScale, switch: beginSwitch } as const;
  if (!(plan.action in acts) || catalogue.get(unit.name).intent) return;
  learnFromLast(context, unit);
  if (clock.monotonicMs() < unit.retry_at_ms) return;
  const begin = acts[plan.action as keyof typeof acts];
  try {
    unit.last_operation = (await begin(context, unit, plan.target_size_bytes ?? 0)).id;
  } catch (error) {
    backOff(context, unit);
    throw error;
  }
}

/** A failed attempt makes the next one wait, ever longer. */
function learnFromLast(context: AgentContext, unit: VolumeUnit) {
  if (unit.last_operation === undefined) return;
  const { state } = context.operations.get(unit.last_operation);
  unit.last_operation = undefined;
  if (state === "failed") backOff(context, unit);
  else unit.failures = 0;
}

/** Doubles the wait with each failure in a row, with a quarter of chance in it. */
function backOff({ clock, config, rng }: AgentContext, unit: VolumeUnit): void {
  const wait_ms = Math.min(config.forecast.interval_ms * 2 ** unit.failures, BACKOFF_MAX_MS);
  unit.failures++;
  unit.retry_at_ms = clock.monotonicMs() + wait_ms * (0.75 + 0.25 * rng.float());
}
