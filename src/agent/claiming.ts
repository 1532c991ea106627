/**
 * A volume that another agent has taken over, taken back by an operator's order: for two agents with one state
 * directory, when it is this one that is to go on. Never done by itself, because only a person knows which of
 * the two was right.
 */
import { PsmaError } from "../core/mod.ts";
import { isLeftAttached, type Placement } from "../dataplane/mod.ts";
import type { DataStore } from "../datastore/mod.ts";
import { type AgentContext, storeNamed } from "./context.ts";
import { attachUnit, openUnit } from "./serving.ts";
import type { VolumeUnit } from "./volume_unit.ts";

/**
 * The other agent is cut off when this resolves; its writes that the store has acknowledged stay.
 * @throws {PsmaError} state/attached, state/not-fenced, state/busy, fenced/claimed, store/...
 */
export async function claimUnit(context: AgentContext, unit: VolumeUnit): Promise<void> {
  const { catalogue, events, plane } = context;
  const { name, directory } = unit;
  if (unit.attachment || isLeftAttached(unit.directory)) {
    throw new PsmaError(
      "state/attached",
      `Cannot claim ${name}: it is attached, and would change under its users`,
      { hint: `Detach it first: psma volume detach ${name} --force` },
    );
  }
  await unit.exclusively("claim", async () => {
    if (unit.open) await closeFenced(context, unit);
    const { epoch } = await plane.command("claimVolume", { name, directory });
    await openUnit(context, unit);
    events.add({
      type: "volume.claimed",
      severity: "warning",
      volume: name,
      message: `${name} is taken back from the agent that held it, as ordered; that one is cut off`,
      data: { epoch_of_the_other: epoch },
    });
  });
  if (catalogue.get(name).desired === "attached") await attachUnit(context, unit);
}

async function closeFenced({ plane }: AgentContext, unit: VolumeUnit): Promise<void> {
  const { name } = unit;
  const { fenced } = await plane.command("volumeStatus", { name });
  if (!fenced) {
    throw new PsmaError(
      "state/not-fenced",
      `Cannot claim ${name}: no other agent has taken it over`,
    );
  }
  await plane.command("closeVolume", { name });
  unit.open = false;
}

/** Where a place's store has its fencing epoch now. @throws {PsmaError} not-found/store-volume, store/... */
export async function epochAtStore(
  stores: ReadonlyMap<string, DataStore>,
  { store, store_volume }: Placement,
): Promise<number> {
  const found = await storeNamed(stores, store).find(store_volume);
  if (found) return found.epoch;
  throw new PsmaError(
    "not-found/store-volume",
    `Cannot find ${store_volume}: store ${store} has no such volume`,
  );
}
