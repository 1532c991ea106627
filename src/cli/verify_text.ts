/** A comparison of both sides in words. */
import type { VerifyResult, VerifyStatus } from "../api/client.ts";
import { formatSize } from "../core/mod.ts";
import { bar } from "./plot.ts";
import { formatPairs } from "./table.ts";

const RANGES_SHOWN = 20;

/** One line that is drawn again and again while it goes on. */
export function formatVerifyProgress(verify: VerifyStatus, width = 24): string {
  const { done_bytes, total_bytes, mismatched_bytes, rate_bytes_per_s, reason } = verify;
  const found = mismatched_bytes === 0 ? "" : `, ${formatSize(mismatched_bytes)} differ`;
  const share = total_bytes === 0 ? 1 : done_bytes / total_bytes;
  return `verifying ${bar(share, width)} ${formatSize(done_bytes)} of ${formatSize(total_bytes)}` +
    `${found}, ${reason ?? `${formatSize(rate_bytes_per_s)}/s`}`;
}

/** A few words for a list of pairs. */
export function formatVerifyLine(verify: VerifyStatus): string {
  const { state, ended_at, mismatched_bytes, done_bytes, total_bytes } = verify;
  const found = mismatched_bytes === 0
    ? "no difference"
    : `${formatSize(mismatched_bytes)} differed`;
  const far = state === "done" ? "" : ` in ${formatSize(done_bytes)} of ${formatSize(total_bytes)}`;
  return `${state}${ended_at === null ? "" : ` ${ended_at}`}: ${found}${far}`;
}

/** All of it. */
export function formatVerify(verify: VerifyResult): string {
  const { mismatches, owners } = verify;
  const pairs: [string, string][] = [
    ["compared", formatSize(verify.equal_bytes + verify.mismatched_bytes)],
    ["behind", `${formatSize(verify.behind_bytes)}, to be copied yet`],
    ["busy", `${formatSize(verify.busy_bytes)}, written all the time`],
    ...(verify.recorded_bytes === 0 ? [] : [[
      "recorded",
      `${formatSize(verify.recorded_bytes)}, to be compared with from now on`,
    ] as [string, string]]),
    ["differed", formatSize(verify.mismatched_bytes)],
  ];
  for (const { at, length } of mismatches.slice(0, RANGES_SHOWN)) {
    const owner = owners.find((one) => one.at === at && one.length === length);
    pairs.push(["", `${length} bytes at ${at}${owner === undefined ? "" : formatOwners(owner)}`]);
  }
  if (mismatches.length > RANGES_SHOWN) {
    pairs.push(["", `and ${mismatches.length - RANGES_SHOWN} more ranges (--json shows them)`]);
  }
  return formatPairs(pairs);
}

function formatOwners(
  { files, has_metadata, has_free, complete }: VerifyResult["owners"][number],
): string {
  const parts = [
    ...files,
    ...(has_metadata ? ["the file system's own structures"] : []),
    ...(has_free ? ["free space"] : []),
  ];
  if (parts.length === 0) parts.push("no file found");
  return `: ${parts.join(", ")}${complete ? "" : " (not all files were looked at)"}`;
}
