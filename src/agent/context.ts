/** What all of the agent's parts work with. */
import { type Clock, type Log, PsmaError, type Rng } from "../core/mod.ts";
import type { DataPlane, Placement } from "../dataplane/mod.ts";
import type { DataStore } from "../datastore/mod.ts";
import type { Catalogue } from "./catalogue.ts";
import type { AgentConfig } from "./config.ts";
import type { EventLog } from "./events.ts";
import { type Operations, STOPPING } from "./operations.ts";

export interface AgentContext {
  readonly config: AgentConfig;
  readonly plane: DataPlane;
  readonly stores: ReadonlyMap<string, DataStore>;
  readonly catalogue: Catalogue;
  readonly events: EventLog;
  readonly operations: Operations;
  readonly clock: Clock;
  readonly rng: Rng;
  readonly log: Log;
  /** Aborted when the agent ends. */
  readonly stopping: AbortSignal;
}

/** @throws {PsmaError} config/reference when the configuration has no store of this name (any more). */
export function storeNamed(stores: ReadonlyMap<string, DataStore>, name: string): DataStore {
  const store = stores.get(name);
  if (store) return store;
  throw new PsmaError("config/reference", `Cannot reach store ${name}: it is not configured`, {
    hint:
      "Name one that the configuration has under stores; add it there again if it holds volumes.",
  });
}

export function samePlace(
  a: Pick<Placement, "store" | "store_volume">,
  b: Pick<Placement, "store" | "store_volume">,
): boolean {
  return a.store === b.store && a.store_volume === b.store_volume;
}

/** Waits. @throws {PsmaError} unavailable/stopping when the agent ends meanwhile. */
export async function pause({ clock, stopping }: AgentContext, ms: number): Promise<void> {
  try {
    await clock.sleep(ms, stopping);
  } catch {
    throw new PsmaError(STOPPING, "Cannot go on: the agent is stopping");
  }
}
