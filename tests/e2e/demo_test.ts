/** `psma demo --json`, by the frontends that this machine has: every field, and nothing left behind. */
import { deepEqual, equal, ok } from "node:assert/strict";
import { mainPath, psma, start } from "../support/process.ts";
import { requires } from "../support/requires.ts";
import { tempDir } from "../support/temp.ts";

const WITHIN_MS = 240_000;
const GIB = 1024 ** 3;

interface DemoReport {
  readonly ok: boolean;
  readonly frontend: string;
  readonly size_before_bytes: number;
  readonly size_after_bytes: number;
  readonly fs_size_after_bytes: number;
  readonly forecast: Record<"trigger_level" | "predicted_bytes" | "actual_bytes", number>;
  readonly mirror: Record<
    "copied_bytes" | "changed_bytes" | "digests_checked" | "digest_mismatches",
    number
  >;
  readonly cutover: {
    readonly epoch: number;
    readonly io_errors: number;
    readonly latency_us: Record<"baseline_p99" | "window_p99" | "window_max", number>;
  };
  readonly verify: {
    readonly files: number;
    readonly bytes: number;
    readonly mismatches: number;
    readonly sqlite_ok: boolean;
  };
}

const CASES = [
  {
    frontend: "fuse",
    needs: { root: true, fuse: true, loop: true, filesystems: ["xfs"], commands: ["mkfs.xfs"] },
  },
  { frontend: "nbd", needs: {} },
] as const;

for (const { frontend, needs } of CASES) {
  Deno.test({
    name: `psma demo --json moves a running application over by ${frontend}, not a byte wrong`,
    ...requires({ io_uring: true, temp_bytes: 2 * GIB, ...needs }),
    async fn() {
      using temp = tempDir();
      const { stdout } = await psma(["demo", "--json", "--frontend", frontend], {
        env: { TMPDIR: temp.path },
        within_ms: WITHIN_MS,
      });
      equal(stdout.split("\n").length, 2, "one line and nothing else");
      const report = JSON.parse(stdout) as DemoReport;
      checkReport(report, frontend);
      deepEqual([...Deno.readDirSync(temp.path)], [], "the demo left its folder behind");
    },
  });
}

function checkReport(report: DemoReport, frontend: string): void {
  deepEqual(Object.keys(report), [
    "ok",
    "frontend",
    "size_before_bytes",
    "size_after_bytes",
    "fs_size_after_bytes",
    "forecast",
    "mirror",
    "cutover",
    "verify",
  ]);
  const { forecast, mirror, cutover, verify } = report;
  equal(report.ok, true);
  equal(report.frontend, frontend);
  ok(report.size_after_bytes > report.size_before_bytes);
  ok(report.fs_size_after_bytes > 0.9 * report.size_before_bytes);
  ok(forecast.trigger_level > 0.5 && forecast.trigger_level < 1);
  ok(forecast.predicted_bytes > 0 && forecast.actual_bytes > 0);
  ok(mirror.copied_bytes > 0);
  ok(mirror.changed_bytes > 0 && mirror.digests_checked > 0);
  equal(mirror.digest_mismatches, 0);
  ok(cutover.epoch >= 1);
  equal(cutover.io_errors, 0);
  const { baseline_p99, window_p99, window_max } = cutover.latency_us;
  ok(baseline_p99 > 0 && window_max >= window_p99 && window_p99 > 0);
  ok(verify.files > 10 && verify.bytes > 100 * 1024 ** 2);
  equal(verify.mismatches, 0);
  equal(verify.sqlite_ok, true);
}

Deno.test({
  name: "an interrupted demo leaves no mount, process or folder behind",
  ...requires({ io_uring: true, temp_bytes: 2 * GIB }),
  async fn() {
    using temp = tempDir();
    await using demo = start(Deno.execPath(), ["run", "-A", "--quiet", mainPath, "demo"], {
      env: { TMPDIR: temp.path },
    });
    await demo.line(/watching: the agent acts by itself/);
    const { code } = await demo.end("SIGINT", 60_000);
    equal(code, 130, demo.output());
    deepEqual([...Deno.readDirSync(temp.path)], []);
    const mounts = Deno.readTextFileSync("/proc/self/mounts");
    ok(!mounts.includes(temp.path), mounts);
  },
});
