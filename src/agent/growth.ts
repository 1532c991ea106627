/**
 * Whether a volume's file system can follow its volume when that grows. Found out before a cutover: a larger
 * volume under a file system that stays small helps nobody, and takes the way back.
 */
import { PsmaError } from "../core/mod.ts";
import { growthFault } from "../dataplane/mod.ts";
import type { VolumeConfig } from "./config_volume.ts";
import type { VolumeUnit } from "./volume_unit.ts";

const HINT = "Run the agent with CAP_SYS_RESOURCE (a full root has it), use xfs or btrfs, " +
  "or set grow: never and grow the file system yourself.";

/** @param fault of a type of file system on this machine; for tests. */
function growthFaultOf(
  { filesystem }: VolumeConfig,
  fault: (type: string) => string | undefined = growthFault,
): string | undefined {
  return filesystem?.grow === "auto" ? fault(filesystem.type) : undefined;
}

/** A sentence for the operator, before anything needs to grow; undefined when nothing is in the way. */
export function growthWarning(
  config: VolumeConfig,
  fault?: (type: string) => string | undefined,
): string | undefined {
  const why = growthFaultOf(config, fault);
  return why === undefined ? undefined : `Cannot scale ${config.name}: ${why}. ${HINT}`;
}

/** A sentence for the plan: why a larger volume would not help now; null when nothing is in the way. */
export function growthObstacle({ config, grow_fault }: VolumeUnit): string | null {
  if (grow_fault !== undefined) {
    return `The last growth has not reached the file system: ${grow_fault}.`;
  }
  const fault = growthFaultOf(config);
  return fault === undefined ? null : `Its file system could not grow: ${fault}. ${HINT}`;
}

/** @throws {PsmaError} sys/permission when the file system could not follow. */
export function needGrowth({ name, config }: VolumeUnit, verb: string): void {
  const fault = growthFaultOf(config);
  if (fault === undefined) return;
  throw new PsmaError("sys/permission", `Cannot ${verb} ${name}: ${fault}`, { hint: HINT });
}
