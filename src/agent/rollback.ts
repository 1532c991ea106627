/**
 * The way back to the backup. A followed one is gone back to live: nothing is lost and nobody notices. A
 * frozen one lacks what was written since: only when the operator says so, and when nobody uses the volume,
 * because a file system must not change under its users.
 */
import { formatDuration, formatSize, PsmaError } from "../core/mod.ts";
import { type CutoverReport, isLeftAttached, type VolumeStatus } from "../dataplane/mod.ts";
import { refreshAllocated } from "./allocation.ts";
import { backupOrder } from "./backup.ts";
import type { Intent } from "./catalogue.ts";
import { type AgentContext, samePlace } from "./context.ts";
import { CONVERGE_WITHIN_MS } from "./scaling_steps.ts";
import { openUnit } from "./serving.ts";
import type { VolumeUnit } from "./volume_unit.ts";

/** What a rollback answers with. */
export type RollbackResult = CutoverReport | { readonly epoch: number };

/**
 * Whether there is a way back now. @param discard what was written since is thrown away.
 * @throws {PsmaError} state/no-backup, state/mirror, state/paused, state/backup, state/would-lose, state/attached
 */
export function needWayBack(
  { clock }: AgentContext,
  unit: VolumeUnit,
  status: VolumeStatus,
  discard: boolean,
): void {
  const { name } = unit, { backup, backup_status, mirror } = status;
  if (!backup || !backup_status) {
    throw new PsmaError("state/no-backup", `Cannot roll back ${name}: it has no backup`, {
      hint: "There is one after a switch.",
    });
  }
  if (mirror) {
    throw new PsmaError("state/mirror", `Cannot roll back ${name}: it is being mirrored`, {
      hint: `psma mirror cancel ${name}, then try again.`,
    });
  }
  const { state, complete, frozen_at, written_bytes } = backup_status;
  if (state === "taken-over") {
    throw new PsmaError("state/backup", `Cannot roll back ${name}: ${backup_status.reason ?? ""}`, {
      hint: "Decide which agent goes on; to go on from the backup, let that be the other one.",
    });
  }
  if (backup_status.mirror?.state === "paused") {
    throw new PsmaError(
      "state/paused",
      `Cannot roll back ${name}: its backup is not followed now`,
      {
        hint: `Let its mirror go on first: psma mirror resume ${name}`,
      },
    );
  }
  if (state !== "frozen") return;
  if (!complete) {
    throw new PsmaError(
      "state/backup",
      `Cannot roll back ${name}: its backup was left in the midst of copying and is no volume`,
      { hint: `psma retire ${name} gives its space back.` },
    );
  }
  if (!discard) {
    const since = frozen_at === null
      ? ""
      : ` ${frozen_at}, ${formatDuration(Math.max(0, clock.nowMs() - Date.parse(frozen_at)))} ago`;
    throw new PsmaError(
      "state/would-lose",
      `Cannot roll back ${name}: its backup is frozen since${since}, and what was written since ` +
        `(at least ${formatSize(written_bytes)}) would be lost`,
      { hint: "--discard-changes throws it away, while the volume is detached." },
    );
  }
  if (unit.attachment || isLeftAttached(unit.directory)) {
    throw new PsmaError(
      "state/attached",
      `Cannot roll back ${name}: it is attached, and would change under its users`,
      { hint: `Detach it first: psma volume detach ${name}` },
    );
  }
}

/** Does what is left to do of a rollback. @throws what `needWayBack`, the data plane and the store throw. */
export async function carryOutRollback(
  context: AgentContext,
  unit: VolumeUnit,
  { from, discard_changes = false }: Intent,
): Promise<RollbackResult> {
  const { catalogue, clock, plane } = context, { name } = unit;
  const result = await unit.exclusively("rollback", async () => {
    const status = await plane.command("volumeStatus", { name });
    const isBack = from === undefined || !samePlace(status.active, from);
    if (isBack) return status.last_cutover ?? { epoch: status.epoch };
    needWayBack(context, unit, status, discard_changes);
    return status.backup_status?.state === "frozen"
      ? await goBackDiscarding(context, unit)
      : await goBackLive(context, unit);
  });
  catalogue.update(name, { mirror: null, last_scale_at_ms: clock.nowMs() });
  unit.mirror_trips = 0;
  unit.switch_trips = 0;
  return result;
}

async function goBackLive(context: AgentContext, unit: VolumeUnit): Promise<CutoverReport> {
  const { plane } = context, { name: volume, config } = unit;
  unit.allocated_at_store = null;
  const report = await plane.command("switchVolume", {
    volume,
    timeout_ms: CONVERGE_WITHIN_MS,
    backup: backupOrder(config.mirror),
  });
  await refreshAllocated(context, unit, await plane.command("volumeStatus", { name: volume }));
  return report;
}

async function goBackDiscarding(
  context: AgentContext,
  unit: VolumeUnit,
): Promise<{ readonly epoch: number }> {
  const { events, plane } = context, { name, directory } = unit;
  await plane.command("closeVolume", { name });
  unit.open = false;
  try {
    const result = await plane.command("restoreBackup", { name, directory });
    events.add({
      type: "backup.restored",
      severity: "warning",
      volume: name,
      message:
        `${name} is what its backup was; the newer state is the backup now, until it is retired`,
      data: { epoch: result.epoch },
    });
    return result;
  } finally {
    await openUnit(context, unit);
  }
}
