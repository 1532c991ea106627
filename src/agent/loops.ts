/**
 * What the agent does by itself, without cron: samples at the sampling interval, evaluations at the forecast's.
 * Each loop ends with the agent; the failure of one round or one volume ends neither.
 */
import { toPsmaError } from "../core/mod.ts";
import type { Forecaster } from "../forecast/mod.ts";
import type { Sampler } from "../monitor/mod.ts";
import type { AgentContext } from "./context.ts";
import { evaluateUnit, usableBytes } from "./evaluation.ts";
import { type Nudge, untilStopped } from "./rounds.ts";
import { placesOf } from "./show.ts";
import { verifyWhenDue } from "./verify_schedule.ts";
import type { VolumeUnit } from "./volume_unit.ts";

/** How often it is looked whether a verify is due. */
const VERIFIES_EVERY_MS = 10_000;

/** Takes one look at all volumes. */
export async function sampleOnce(
  { plane }: AgentContext,
  units: Iterable<VolumeUnit>,
  sampler: Sampler,
  forecaster: Forecaster,
): Promise<void> {
  const watched = [...units].filter((unit) => unit.open);
  const seen = await sampler.observe(watched.map((unit) => ({
    volume: unit.name,
    page: plane.counters.get(unit.name),
    allocated_bytes: unit.allocated_at_store,
    ...placesOf(unit.attachment?.exports ?? []),
  })));
  for (const observation of seen) {
    const unit = watched.find(({ name }) => name === observation.volume);
    if (unit) unit.observation = observation;
    forecaster.append(observation.samples);
  }
}

/** Samples until the agent ends; a round that took long is not made up for. */
export async function runSampling(
  context: AgentContext,
  units: ReadonlyMap<string, VolumeUnit>,
  sampler: Sampler,
  forecaster: Forecaster,
  evaluations: Nudge,
): Promise<void> {
  const { clock, config } = context;
  let next_ms = clock.monotonicMs();
  await untilStopped(context, async () => {
    try {
      await sampleOnce(context, units.values(), sampler, forecaster);
      for (const unit of units.values()) if (crossedThreshold(unit)) evaluations.now();
    } catch (error) {
      context.log.error("sampling failed", { reason: toPsmaError(error).message });
    }
    const { interval_ms } = config.sampling;
    const late_ms = clock.monotonicMs() - next_ms;
    next_ms += interval_ms * Math.max(1, Math.ceil(late_ms / interval_ms));
    return next_ms - clock.monotonicMs();
  });
}

/** Evaluates all volumes until the agent ends. */
export async function runEvaluations(
  context: AgentContext,
  units: ReadonlyMap<string, VolumeUnit>,
  forecaster: Forecaster,
  nudge: Nudge,
): Promise<void> {
  await untilStopped(context, async () => {
    for (const unit of [...units.values()]) {
      if (context.stopping.aborted) break;
      await evaluateSafely(context, unit, forecaster);
    }
    return context.config.forecast.interval_ms;
  }, nudge);
}

/** Whether a volume's measured use has just passed its threshold: that is not left to wait for the next round. */
function crossedThreshold(unit: VolumeUnit): boolean {
  const { observation, config } = unit;
  if (!observation?.counters) return false;
  const usable = usableBytes(unit, observation.counters);
  const before = unit.too_full;
  unit.too_full = observation.used_bytes >= config.scale.threshold * usable;
  return unit.too_full && !before;
}

async function evaluateSafely(
  context: AgentContext,
  unit: VolumeUnit,
  forecaster: Forecaster,
): Promise<void> {
  const { log, catalogue } = context;
  try {
    if (!catalogue.find(unit.name)) return;
    if (unit.open) await evaluateUnit(context, forecaster, unit);
  } catch (error) {
    const { code, message } = toPsmaError(error);
    if (!context.stopping.aborted) {
      log.warn("an evaluation failed", { volume: unit.name, code, reason: message });
    }
  }
}

/** Verifies what is due until the agent ends. */
export async function runVerifies(
  context: AgentContext,
  units: ReadonlyMap<string, VolumeUnit>,
): Promise<void> {
  await untilStopped(context, async () => {
    for (const unit of [...units.values()]) {
      if (!context.stopping.aborted) await verifyWhenDue(context, unit);
    }
    return VERIFIES_EVERY_MS;
  });
}
