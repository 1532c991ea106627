/** How much a volume's store has allocated for it, where only the store can tell. */
import { toPsmaError } from "../core/mod.ts";
import type { VolumeStatus } from "../dataplane/mod.ts";
import { type AgentContext, storeNamed } from "./context.ts";
import type { VolumeUnit } from "./volume_unit.ts";

/** Asks the store, unless the data plane can tell. What was known stays where the store does not answer. */
export async function refreshAllocated(
  { stores, log }: AgentContext,
  unit: VolumeUnit,
  { allocated_bytes, active }: VolumeStatus,
): Promise<void> {
  if (allocated_bytes !== null) {
    unit.allocated_at_store = undefined;
    return;
  }
  unit.allocated_at_store ??= null;
  if (unit.config.filesystem) return;
  try {
    const found = await storeNamed(stores, active.store).find(active.store_volume);
    if (found) unit.allocated_at_store = found.allocated_bytes;
  } catch (error) {
    log.debug("the store did not say what is allocated", { reason: toPsmaError(error).message });
  }
}
