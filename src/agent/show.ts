/** Views of volumes: what status, volume show and the page are made of. */
import type { ExportInfo, VolumeStatus } from "../dataplane/mod.ts";
import type { Forecast } from "../forecast/mod.ts";
import type { BackupView, TimeToFull, VolumeView } from "./views.ts";
import type { VolumeUnit } from "./volume_unit.ts";

/** @param status undefined: the volume is not open; then the configuration says what it should be. */
export function viewOf(unit: VolumeUnit, status: VolumeStatus | undefined): VolumeView {
  const { name, config, observation, attachment } = unit;
  const active = status?.active;
  const reason = reasonOf(unit, status);
  return {
    name,
    state: unit.state,
    ...(reason === undefined ? {} : { reason }),
    size_bytes: status?.size_bytes ?? config.size_bytes,
    max_size_bytes: status?.max_size_bytes ?? config.max_size_bytes,
    epoch: status?.epoch ?? 0,
    active: {
      store: active?.store ?? config.store,
      backend: active?.backend.type ?? "none",
      uri: active === undefined ? "" : uriOf(active.backend),
      operations: status?.operations ?? [],
    },
    backup: backupOf(status),
    exports: attachment?.exports ?? [],
    filesystem: filesystemOf(unit),
    used_bytes: observation?.used_bytes ?? 0,
    used_source: config.filesystem ? "filesystem" : "allocated",
    mirror: status?.mirror ?? null,
    last_cutover: status?.last_cutover ?? null,
    time_to_full: timeToFull(unit.forecast, config.scale.level),
  };
}

function backupOf(status: VolumeStatus | undefined): BackupView | null {
  if (!status?.backup || !status.backup_status) return null;
  const { store, size_bytes } = status.backup, { mirror, ...how } = status.backup_status;
  const dirty_bytes = mirror?.dirty_bytes ?? null, lag_ms = mirror?.lag_ms ?? null;
  return { store, size_bytes, ...how, dirty_bytes, lag_ms };
}

/** Why a volume does not serve, or serves and does not answer. */
function reasonOf(unit: VolumeUnit, status: VolumeStatus | undefined): string | undefined {
  if (unit.reason !== undefined || status === undefined || status.connected) return unit.reason;
  if (status.fenced === true) {
    return `store ${status.active.store} refuses epoch ${status.epoch}: another writer has taken the volume over, ` +
      "and all I/O fails";
  }
  return `store ${status.active.store} does not answer: requests wait until it is back`;
}

/** The mount point and device name of a volume's export, where it has them. */
export function placesOf(
  exports: readonly ExportInfo[],
): { mount: string | null; device: string | null } {
  const exported = exports.find((one) => one.device !== undefined);
  const device = exported?.device?.replace(/^\/dev\//, "") ?? null;
  return { mount: exported?.mount ?? null, device };
}

/** From a forecast that was asked for the time to its limit. */
function timeToFull(forecast: Forecast | undefined, level: number): TimeToFull | null {
  const limit = forecast?.time_to_limit;
  if (!forecast || !limit) return null;
  const at = (wanted: number) => {
    const at_ms = limit.by_level.find((one) => Math.abs(one.level - wanted) < 1e-9)?.at_ms ?? null;
    return at_ms === null ? null : new Date(at_ms).toISOString();
  };
  return {
    limit_bytes: limit.limit,
    median_at: at(0.5),
    upper_at: at(level),
    upper_level: level,
    probability_within_horizon: limit.probability_within_horizon,
    forecast_at: new Date(forecast.origin_ms).toISOString(),
  };
}

function filesystemOf({ config, observation, attachment }: VolumeUnit): VolumeView["filesystem"] {
  const use = observation?.filesystem;
  const { mount } = placesOf(attachment?.exports ?? []);
  if (!config.filesystem || !use || mount === null) return null;
  return {
    type: config.filesystem.type,
    mount,
    size_bytes: use.size_bytes,
    used_bytes: use.used_bytes,
    inodes_total: use.inodes_total,
    inodes_used: use.inodes_used,
  };
}

function uriOf(backend: VolumeStatus["active"]["backend"]): string {
  return backend.type === "nbd" ? backend.uri : `file://${backend.path}`;
}
