/** What the demo found out: the JSON object for programs, the page for people, and whether all of it holds. */
import type { AgentEvent, VolumeView } from "../../api/client.ts";
import { formatDuration, formatSize } from "../../core/mod.ts";
import { formatPairs } from "../table.ts";
import type { Paint } from "../terminal.ts";
import type { Verdict } from "./application.ts";
import type { Prediction } from "./prediction.ts";
import type { LatencySummary } from "./latencies.ts";

/** The last line of `psma demo --json`. */
export interface DemoReport {
  readonly ok: boolean;
  readonly frontend: "fuse" | "nbd";
  readonly size_before_bytes: number;
  readonly size_after_bytes: number;
  /** What the application can fill afterwards: its file system; over NBD, the device as it sees it. */
  readonly fs_size_after_bytes: number;
  readonly forecast: {
    readonly trigger_level: number;
    readonly predicted_bytes: number;
    readonly actual_bytes: number;
  };
  readonly mirror: {
    readonly copied_bytes: number;
    readonly changed_bytes: number;
    readonly digests_checked: number;
    readonly digest_mismatches: number;
  };
  readonly cutover: {
    readonly epoch: number;
    readonly io_errors: number;
    readonly latency_us: {
      readonly baseline_p99: number;
      readonly window_p99: number;
      readonly window_max: number;
    };
  };
  readonly verify: {
    readonly files: number;
    readonly bytes: number;
    readonly mismatches: number;
    readonly sqlite_ok: boolean;
  };
}

/** What the demo saw, besides what the report tells. */
export interface Observed {
  readonly frontend: "fuse" | "nbd";
  readonly before: VolumeView;
  readonly after: VolumeView;
  readonly prediction: Prediction;
  readonly tripped: AgentEvent | null;
  readonly verdict: Verdict;
  /** The application's own synchronous writes. */
  readonly latency: { readonly before: LatencySummary; readonly around: LatencySummary };
  readonly took_ms: number;
}

/** A fact that is missing is 0, and a fault: {@linkcode faultsOf} takes no such zero for good. */
export function reportOf(observed: Observed): DemoReport {
  const { frontend, before, after, prediction, verdict } = observed;
  const cutover = after.last_cutover;
  const report: Omit<DemoReport, "ok"> = {
    frontend,
    size_before_bytes: before.size_bytes,
    size_after_bytes: after.size_bytes,
    fs_size_after_bytes: after.filesystem?.size_bytes ?? verdict.capacity_bytes,
    forecast: {
      trigger_level: prediction.level,
      predicted_bytes: Math.round(prediction.upper_bytes),
      actual_bytes: prediction.actual_bytes ?? 0,
    },
    mirror: {
      copied_bytes: cutover?.copied_bytes ?? 0,
      changed_bytes: cutover?.changed_bytes ?? 0,
      digests_checked: cutover?.digests_checked ?? 0,
      digest_mismatches: cutover?.digest_mismatches ?? 0,
    },
    cutover: {
      epoch: cutover?.epoch ?? 0,
      io_errors: cutover?.io_errors ?? 0,
      latency_us: cutover?.latency_us ?? { baseline_p99: 0, window_p99: 0, window_max: 0 },
    },
    verify: {
      files: verdict.files,
      bytes: verdict.bytes,
      mismatches: verdict.mismatches,
      sqlite_ok: verdict.sqlite_ok,
    },
  };
  return { ok: faultsOf(report, observed).length === 0, ...report };
}

/** Everything that does not hold, one sentence each. */
export function faultsOf(report: Omit<DemoReport, "ok">, observed: Observed): readonly string[] {
  const { before, after } = observed;
  const fs_before = before.filesystem?.size_bytes ?? before.size_bytes;
  const claims: [boolean, string][] = [
    [wasForeseen(observed.tripped), "the forecast did not trip before the threshold was passed"],
    [after.last_cutover !== null, "the volume was not switched"],
    [report.size_after_bytes > report.size_before_bytes, "the volume did not grow"],
    [report.fs_size_after_bytes > fs_before, "the application got no more room"],
    [report.cutover.epoch > before.epoch, "the epoch did not rise"],
    [report.cutover.io_errors === 0, "the cutover caused I/O errors"],
    [report.cutover.latency_us.baseline_p99 > 0, "no latency was measured before the cutover"],
    [report.cutover.latency_us.window_max > 0, "no latency was measured around the cutover"],
    [report.forecast.predicted_bytes > 0, "nothing was predicted"],
    [report.forecast.actual_bytes > 0, "what was predicted was not measured"],
    [report.mirror.copied_bytes > 0, "nothing was copied"],
    [report.mirror.digests_checked > 0, "no digest was checked"],
    [report.mirror.digest_mismatches === 0, "digests of copied extents did not match"],
    [report.verify.files > 0, "the application wrote nothing"],
    [report.verify.mismatches === 0, "content was not what had been written"],
    [report.verify.sqlite_ok, "the database is damaged"],
  ];
  return claims.filter(([holds]) => !holds).map(([, fault]) => fault);
}

/** The agent began because of what was to come, not because of what was there. */
function wasForeseen(tripped: AgentEvent | null): boolean {
  const used = tripped?.data["used_bytes"];
  const threshold = tripped?.data["threshold_bytes"];
  return typeof used === "number" && typeof threshold === "number" && used < threshold;
}

/** The page that a person reads at the end. */
export function formatReport(report: DemoReport, observed: Observed, paint: Paint): string {
  const { prediction, latency, verdict, took_ms } = observed;
  const { mirror, cutover, verify, forecast } = report;
  const level = `${Math.round(100 * forecast.trigger_level)}%`;
  const faults = faultsOf(report, observed);
  const good = (holds: boolean, text: string) => paint(holds ? "green" : "red", text);
  const rows: [string, string][] = [
    [
      "size",
      `${formatSize(report.size_before_bytes)} → ${
        good(
          report.size_after_bytes > report.size_before_bytes,
          formatSize(report.size_after_bytes),
        )
      }`,
    ],
    [
      report.frontend === "nbd" ? "device" : "file system",
      `${formatSize(report.fs_size_after_bytes)}, not taken off for it, ${
        good(cutover.io_errors === 0, `${cutover.io_errors} I/O errors`)
      }`,
    ],
    [
      "forecast",
      `${level} sure to stay below ${formatSize(forecast.predicted_bytes)} ` +
      `(median ${formatSize(prediction.median_bytes)}) ${
        formatDuration(prediction.ahead_ms)
      } ahead; ` +
      `it was ${formatSize(forecast.actual_bytes)}`,
    ],
    [
      "mirror",
      `${formatSize(mirror.copied_bytes)} copied, ${
        formatSize(mirror.changed_bytes)
      } changed meanwhile; ` +
      good(
        mirror.digest_mismatches === 0,
        `${mirror.digests_checked} digests, ${mirror.digest_mismatches} mismatches`,
      ),
    ],
    [
      "cutover",
      latencies(
        "volume",
        cutover.latency_us.baseline_p99,
        cutover.latency_us.window_p99,
        cutover.latency_us.window_max,
      ),
    ],
    [
      "",
      latencies("fsync", latency.before.p99_us, latency.around.p99_us, latency.around.max_us) +
      `, longest before ${milliseconds(latency.before.max_us)}`,
    ],
    [
      "verified",
      `${verify.files} ${report.frontend === "nbd" ? "objects" : "files"}, ${
        formatSize(verdict.bytes)
      }: ` +
      `${good(verify.mismatches === 0, `${verify.mismatches} mismatches`)}; SQLite ` +
      good(verify.sqlite_ok, verify.sqlite_ok ? "integrity_check ok, every row there" : "damaged"),
    ],
  ];
  const end = faults.length === 0
    ? paint("green", `All of it holds, in ${formatDuration(took_ms)}.`)
    : paint("red", `It does not hold: ${faults.join("; ")}.`);
  return `${formatPairs(rows.map(([name, value]) => [`  ${name}`, value]))}\n\n${end}`;
}

function latencies(what: string, before: number, p99: number, max: number): string {
  return `${what.padEnd(6)} p99 ${milliseconds(before)} before, ${
    milliseconds(p99)
  } around it, longest ${milliseconds(max)}`;
}

function milliseconds(us: number): string {
  return `${(us / 1000).toFixed(us < 10_000 ? 2 : 1)}ms`;
}
