/** Which files own ranges of a volume, found out in a process of its own: it reads what this one serves. */
import type { DeviceRange, RangeOwners } from "../../sys/mod.ts";
import { runHostTask } from "./process.ts";

export type { DeviceRange, RangeOwners };

/**
 * @param search.mount where the volume's file system is mounted. @param search.within_ms how long to look.
 * @returns owners of each range, in order. @throws {PsmaError} internal/host-task, sys/...
 */
export function findOwners(
  search: { mount: string; ranges: readonly DeviceRange[]; within_ms: number },
): Promise<readonly RangeOwners[]> {
  return runHostTask("findOwners", search);
}
