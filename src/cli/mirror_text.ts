/** A mirror in words and pictures. */
import type { MirrorStatus } from "../api/client.ts";
import { formatDuration, formatSize } from "../core/mod.ts";
import { bar } from "./plot.ts";
import { formatPairs } from "./table.ts";
import { formatVerifyLine } from "./verify_text.ts";

/** A few words for a table's cell. */
export function formatMirrorLine(mirror: MirrorStatus): string {
  const { state, reason, lag_ms } = mirror;
  if (state === "syncing") return `syncing ${Math.floor(mirror.percent)}%`;
  if (reason !== undefined) return `${state}: ${reason}`;
  return lag_ms === null ? state : `${state}, ${formatDuration(lag_ms)} behind`;
}

/** One line that is drawn again and again while it fills. */
export function formatMirrorProgress(mirror: MirrorStatus, width = 24): string {
  const { state, percent, dirty_bytes, rate_bytes_per_s, dirty_rate_bytes_per_s } = mirror;
  const dirties = dirty_rate_bytes_per_s > 0
    ? `, ${formatSize(dirty_rate_bytes_per_s)}/s dirtied`
    : "";
  return `${state.padEnd(10)} ${bar(percent / 100, width)} ${Math.floor(percent)}%, ` +
    `${formatSize(dirty_bytes)} left, ${formatSize(rate_bytes_per_s)}/s${dirties}` +
    (dirty_bytes > 0 ? `, ${formatArrival(mirror)}` : "");
}

/** When nothing will be dirty: `3m 20s to go (2m 50s to 4m 10s)`, or why there is no such time. */
function formatArrival({ eta_s, eta_low_s, eta_high_s, eta_reason }: MirrorStatus): string {
  if (eta_s === null) return eta_reason ?? "nobody knows when";
  const at = (seconds: number) => formatDuration(seconds * 1000);
  const low = at(eta_low_s ?? eta_s), high = eta_high_s === null ? "no bound" : at(eta_high_s);
  return low === high ? `${at(eta_s)} to go` : `${at(eta_s)} to go (${low} to ${high})`;
}

function formatLimits({ scheduled }: MirrorStatus): string {
  const { floor_bytes_per_s: floor, ceiling_bytes_per_s: ceiling } = scheduled;
  const most = ceiling === null ? "no ceiling" : `at most ${formatSize(ceiling)}/s`;
  return floor > 0 ? `${most}, at least ${formatSize(floor)}/s` : most;
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
    ["round", `${mirror.percent}% done, ${formatSize(mirror.dirty_bytes)} left`],
    [
      "rate",
      `${formatSize(mirror.rate_bytes_per_s)}/s copied, ` +
      `${formatSize(mirror.dirty_rate_bytes_per_s)}/s dirtied`,
    ],
    ["limits", formatLimits(mirror)],
    ["behind", lag_ms === null ? "not complete yet" : formatDuration(lag_ms)],
    ["clean in", mirror.dirty_bytes === 0 ? "0ms" : formatArrival(mirror)],
    ["next round", formatNext(mirror)],
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

function formatNext({ scheduled: { next_round_at, because }, state }: MirrorStatus): string {
  const isUnderWay = state === "syncing" || state === "resyncing" || state === "converging";
  const when = next_round_at ?? (isUnderWay ? "under way" : "none is due");
  return `${when}. ${because.join(" ")}`;
}
