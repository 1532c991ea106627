/**
 * The backup after a switch, as the agent sees it: how it is to be followed, and that it grows before its
 * volume does. A backup that cannot grow is frozen first, so that it stays the volume as it was at one moment.
 */
import { formatSize, toPsmaError } from "../core/mod.ts";
import type { BackupOrder, MirrorTerms, VolumeStatus } from "../dataplane/mod.ts";
import type { MirrorConfig } from "./config_mirror.ts";
import { type AgentContext, storeNamed } from "./context.ts";
import type { VolumeUnit } from "./volume_unit.ts";

/** What a mirror is to keep to. */
export function termsOf(config: MirrorConfig): MirrorTerms {
  return {
    max_rate_bytes_per_s: config.max_rate_bytes_per_s,
    rate_windows: config.rate_windows,
    min_rate_bytes_per_s: config.min_rate_bytes_per_s,
    write_through_timeout_ms: config.write_through_timeout_ms,
    resync_interval_ms: config.rpo_ms,
    durability: config.durability,
  };
}

/** What is to become of a source after the next switch. */
export function backupOrder(config: MirrorConfig): BackupOrder {
  const { backup: mode, failover_after_ms } = config;
  return { mode, terms: termsOf(config), failover_after_ms };
}

/**
 * A volume that moved to a larger place gets its size: at once where its backup is frozen, else when the
 * backup has it too. Does nothing where that is done. Bytes beyond the old size are announced to nobody before.
 */
export async function settleGrowth(context: AgentContext, unit: VolumeUnit): Promise<VolumeStatus> {
  const { plane } = context, { name } = unit;
  const status = await plane.command("volumeStatus", { name });
  const { active, size_bytes } = status;
  if (status.mirror !== null || active.size_bytes <= size_bytes) return status;
  await growBackup(context, unit, status);
  return await plane.command("growVolume", { name, size_bytes: active.size_bytes });
}

async function growBackup(
  { plane, stores }: AgentContext,
  { name: volume }: VolumeUnit,
  { active: { size_bytes }, backup, backup_status }: VolumeStatus,
): Promise<void> {
  if (!backup || backup_status?.state === "frozen") return;
  try {
    await storeNamed(stores, backup.store).resize(backup.store_volume, size_bytes);
    await plane.command("growBackup", { volume, size_bytes });
  } catch (error) {
    const reason = `the volume grows to ${formatSize(size_bytes)}, and its backup cannot: ` +
      toPsmaError(error).message;
    await plane.command("freezeBackup", { volume, reason });
  }
}
