/** A mirror in words and pictures. */
import type { MirrorStatus } from "../api/client.ts";
import { formatDuration, formatSize } from "../core/mod.ts";
import { bar } from "./plot.ts";
import { formatPairs } from "./table.ts";
import { formatVerifyLine } from "./verify_text.ts";

/** A few words for a table's cell. */
export function formatMirrorLine(mirror: MirrorStatus): string {
  const { state, reason, lag_ms } = mirror;
  if (state === "syncing") return `syncing ${Math.floor(100 * shareDone(mirror))}%`;
  if (reason !== undefined) return `${state}: ${reason}`;
  return lag_ms === null ? state : `${state}, ${formatDuration(lag_ms)} behind`;
}

/** One line that is drawn again and again while it fills. */
export function formatMirrorProgress(mirror: MirrorStatus, width = 24): string {
  const { state, copied_bytes, total_bytes, rate_bytes_per_s, eta_s, dirty_bytes } = mirror;
  const eta = eta_s === null ? "" : `, ${formatDuration(eta_s * 1000)} left`;
  return `${state.padEnd(10)} ${bar(shareDone(mirror), width)} ${formatSize(copied_bytes)} of ` +
    `${formatSize(total_bytes)}, ${formatSize(dirty_bytes)} dirty, ` +
    `${formatSize(rate_bytes_per_s)}/s${eta}`;
}

/** All of it. */
export function formatMirror(mirror: MirrorStatus): string {
  const { target, digests, lag_ms, reason } = mirror;
  return formatPairs([
    ["state", reason === undefined ? mirror.state : `${mirror.state}: ${reason}`],
    ["target", `${target.store} ${target.store_volume}, ${formatSize(target.size_bytes)}`],
    ["copied", `${formatSize(mirror.copied_bytes)} of ${formatSize(mirror.total_bytes)}`],
    [
      "compared",
      `${formatSize(mirror.compared_bytes)}, ${formatSize(mirror.equal_bytes)} equal and not sent`,
    ],
    ["changed", `${formatSize(mirror.changed_bytes)} since the first round began`],
    ["dirty", formatSize(mirror.dirty_bytes)],
    ["rate", `${formatSize(mirror.rate_bytes_per_s)}/s`],
    ["behind", lag_ms === null ? "not complete yet" : formatDuration(lag_ms)],
    ["left", mirror.eta_s === null ? "unknown" : formatDuration(mirror.eta_s * 1000)],
    ["rounds", String(mirror.rounds)],
    ["write-through", mirror.write_through ? "on" : "off"],
    [
      "digests",
      `${digests.checked} checked (${digests.algorithm}), ${digests.mismatched} mismatched, ` +
      `${formatSize(digests.unverified_bytes)} written through since`,
    ],
    ["verify", mirror.verify === null ? "never" : formatVerifyLine(mirror.verify)],
  ]);
}

function shareDone({ copied_bytes, total_bytes }: MirrorStatus): number {
  return total_bytes === 0 ? 1 : Math.min(1, copied_bytes / total_bytes);
}
