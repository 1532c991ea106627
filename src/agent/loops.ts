/**
 * What the agent does by itself, without cron: samples at the sampling interval, evaluations at the forecast's.
 * Each loop ends with the agent; the failure of one round or one volume ends neither.
 */
import { type Clock, toPsmaError } from "../core/mod.ts";
import { isLeftAttached } from "../dataplane/mod.ts";
import type { Forecaster } from "../forecast/mod.ts";
import type { Sampler } from "../monitor/mod.ts";
import type { AgentContext } from "./context.ts";
import { backOff, evaluateUnit } from "./evaluation.ts";
import { attachUnit, finishDelete, openUnit } from "./serving.ts";
import { placesOf } from "./show.ts";
import { verifyWhenDue } from "./verify_schedule.ts";
import type { VolumeUnit } from "./volume_unit.ts";

const TAKE_OVER_EVERY_MS = 2000;
/** How often it is looked whether a verify is due. */
const VERIFIES_EVERY_MS = 10_000;

/** Cuts a loop's wait short; a nudge while nobody waits counts for the next wait. */
export class Nudge {
  #next = new AbortController();

  now(): void {
    this.#next.abort();
  }

  /** Aborted by the next nudge, or already when there was one since the last call. */
  signal(): AbortSignal {
    const { signal } = this.#next;
    if (signal.aborted) this.#next = new AbortController();
    return signal;
  }
}

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
  await untilStopped(context, new Nudge(), async () => {
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
  await untilStopped(context, nudge, async () => {
    for (const unit of [...units.values()]) {
      if (context.stopping.aborted) break;
      await evaluateSafely(context, unit, forecaster);
    }
    return context.config.forecast.interval_ms;
  });
}

/** Whether a volume's measured use has just passed its threshold: that is not left to wait for the next round. */
function crossedThreshold(unit: VolumeUnit): boolean {
  const { observation, config } = unit;
  if (!observation?.counters) return false;
  const use = observation.filesystem;
  const usable = use ? use.used_bytes + use.available_bytes : observation.counters.size_bytes;
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
    if (unit.state === "failed") await tryAgain(context, unit);
    if (unit.open) await evaluateUnit(context, forecaster, unit);
  } catch (error) {
    const { code, message } = toPsmaError(error);
    if (!context.stopping.aborted) {
      log.warn("an evaluation failed", { volume: unit.name, code, reason: message });
    }
  }
}

/**
 * Volumes whose users wait since an agent was killed are tried again every few seconds until they are served:
 * the next evaluation may be an hour away.
 */
export async function runTakeOvers(
  context: AgentContext,
  units: ReadonlyMap<string, VolumeUnit>,
): Promise<void> {
  await untilStopped(context, new Nudge(), async () => {
    for (const unit of [...units.values()]) {
      const waits = unit.state === "failed" && isLeftAttached(unit.directory) &&
        context.catalogue.find(unit.name)?.desired === "attached";
      // The reason stands in the unit, and an event told it.
      if (waits && !context.stopping.aborted) await bringUp(context, unit).catch(() => {});
    }
    return TAKE_OVER_EVERY_MS;
  });
}

/** Verifies what is due until the agent ends. */
export async function runVerifies(
  context: AgentContext,
  units: ReadonlyMap<string, VolumeUnit>,
): Promise<void> {
  await untilStopped(context, new Nudge(), async () => {
    for (const unit of [...units.values()]) {
      if (!context.stopping.aborted) await verifyWhenDue(context, unit);
    }
    return VERIFIES_EVERY_MS;
  });
}

/** A volume that could not be opened, attached or deleted is tried again, at growing intervals. */
async function tryAgain(context: AgentContext, unit: VolumeUnit): Promise<void> {
  if (context.clock.monotonicMs() < unit.retry_at_ms) return;
  try {
    await bringUp(context, unit);
    unit.failures = 0;
  } catch {
    backOff(context, unit); // The reason stands in the unit, and an event told it.
  }
}

/** Brings a volume to where it is wanted. @throws why it cannot, after it was told. */
export async function bringUp(context: AgentContext, unit: VolumeUnit): Promise<void> {
  const { catalogue, events } = context;
  const { desired } = catalogue.get(unit.name);
  try {
    if (desired === "deleted") await finishDelete(context, unit);
    else if (desired === "attached") await attachUnit(context, unit);
    else await openUnit(context, unit);
  } catch (error) {
    const { code, message, hint } = toPsmaError(error);
    if (unit.told !== message) {
      events.add({
        type: "volume.failed",
        severity: "error",
        volume: unit.name,
        message: hint === undefined ? message : `${message}. ${hint}`,
        data: { code },
      });
    }
    unit.told = message;
    unit.fail(message);
    throw error;
  }
  unit.told = undefined;
}

/** @param round answers how many milliseconds to wait for the next one. */
async function untilStopped(
  { clock, stopping }: AgentContext,
  nudge: Nudge,
  round: () => Promise<number>,
): Promise<void> {
  while (!stopping.aborted) {
    const wait_ms = await round();
    await waitFor(Math.max(0, wait_ms), clock, AbortSignal.any([stopping, nudge.signal()]));
  }
}

async function waitFor(ms: number, clock: Clock, signal: AbortSignal): Promise<void> {
  await clock.sleep(ms, signal).catch(() => {}); // Cut short: then the next round begins now.
}
