/**
 * Bringing volumes to where they are wanted, and going on with what was under way, at the start and for as long as
 * the agent runs: a store that is away, or is still starting, keeps nobody waiting but its own volumes.
 */
import { toPsmaError } from "../core/mod.ts";
import { isLeftAttached } from "../dataplane/mod.ts";
import type { AgentContext } from "./context.ts";
import { untilStopped } from "./rounds.ts";
import { resumeIntent } from "./scaling.ts";
import { attachUnit, finishDelete, openUnit } from "./serving.ts";
import { resumeVerify } from "./verifying.ts";
import type { VolumeUnit } from "./volume_unit.ts";

const AGAIN_EVERY_MS = 2000, PAUSE_MAX_MS = 60_000;

/** Tries every volume once, all at the same time. Never throws: what failed is tried again by `runBringUps`. */
export async function bringAllUp(
  context: AgentContext,
  units: Map<string, VolumeUnit>,
): Promise<void> {
  await Promise.all([...units.values()].map((unit) => tryBringUp(context, units, unit)));
}

/** Tries failed volumes again until the agent ends: those whose users wait every time, others at growing pauses. */
export async function runBringUps(
  context: AgentContext,
  units: Map<string, VolumeUnit>,
): Promise<void> {
  await untilStopped(context, async () => {
    await Promise.all([...units.values()].map(async (unit) => {
      if (context.stopping.aborted) return;
      if (isDue(context, unit)) await tryBringUp(context, units, unit);
      else await goOn(context, unit);
    }));
    return AGAIN_EVERY_MS;
  });
}

function isDue({ clock, catalogue }: AgentContext, unit: VolumeUnit): boolean {
  if (unit.state !== "failed") return false;
  const isWaitedFor = isLeftAttached(unit.directory) &&
    catalogue.find(unit.name)?.desired === "attached";
  return isWaitedFor || clock.monotonicMs() >= unit.bring_up_at_ms;
}

/** The reason of a failure stands in the unit, and an event told it. */
async function tryBringUp(
  context: AgentContext,
  units: Map<string, VolumeUnit>,
  unit: VolumeUnit,
): Promise<void> {
  const { catalogue, clock } = context;
  try {
    await bringUp(context, unit);
    unit.bring_up_pause_ms = 0;
  } catch {
    unit.bring_up_at_ms = clock.monotonicMs() + unit.bring_up_pause_ms;
    unit.bring_up_pause_ms = Math.min(PAUSE_MAX_MS, unit.bring_up_pause_ms * 2 || AGAIN_EVERY_MS);
  }
  if (catalogue.find(unit.name)) await goOn(context, unit);
  else units.delete(unit.name);
}

/** Once for each volume, when it is open: with what was under way when the agent ended. */
async function goOn(context: AgentContext, unit: VolumeUnit): Promise<void> {
  if (unit.resumed || !unit.open || context.stopping.aborted) return;
  unit.resumed = true;
  try {
    await resumeVerify(context, unit);
    resumeIntent(context, unit);
  } catch (error) {
    unit.resumed = false;
    const { code, message } = toPsmaError(error);
    context.log.warn("what was under way waits", { volume: unit.name, code, reason: message });
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
