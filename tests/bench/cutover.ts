/**
 * What an application notices of cutovers: latencies from the first step to a second after the commit,
 * against the same volume's minute before, while fio writes 4k at random over NBD.
 */
import { silentLog } from "../../src/core/mod.ts";
import { type CutoverReport, DataPlane } from "../../src/dataplane/mod.ts";
import { FarStore, thinPlacement } from "../support/planes.ts";
import { start, waitUntil } from "../support/process.ts";
import { tempDir } from "../support/temp.ts";
import { type Bench, type BenchOptions, type BenchResult, median } from "./pairs.ts";

const MIB = 2 ** 20;
const SIZE_BYTES = 64 * MIB;

async function cutovers(options: BenchOptions): Promise<CutoverReport[]> {
  Deno.env.set("TMPDIR", "/dev/shm");
  using temp = tempDir("bench");
  await using far = await FarStore.start(temp);
  const agent = await DataPlane.start({ log: silentLog, questions: far.questions });
  try {
    await agent.command("serveNbd", { listen: { path: temp.file("a.sock") }, fenced: false });
    await agent.command("openVolume", {
      name: "data",
      directory: temp.file("data"),
      max_size_bytes: 1024 * MIB,
      initial: thinPlacement(temp.file("first"), SIZE_BYTES),
    });
    const { uri } = await agent.command("exportNbd", { name: "data", description: "bench" });
    await using _writer = start("fio", [
      "--name=writer",
      "--ioengine=nbd",
      `--uri=${uri}`,
      "--rw=randrw",
      "--rwmixread=30",
      "--bs=4k",
      "--iodepth=4",
      "--rate_iops=2000,2000",
      `--size=${SIZE_BYTES}`,
      "--time_based",
      "--runtime=600",
    ]);
    const reports: CutoverReport[] = [];
    for (let round = 1; round <= options.rounds; round++) {
      await new Promise((resolve) => setTimeout(resolve, options.seconds * 1000));
      await agent.command("startMirror", {
        volume: "data",
        id: `m${round}`,
        target: await far.create(`v${round}`, SIZE_BYTES + round * MIB, round + 1),
        max_rate_bytes_per_s: null,
        write_through_timeout_ms: 2000,
        resync_interval_ms: 100,
      });
      await agent.command("switchVolume", { volume: "data", timeout_ms: 60_000 });
      reports.push(
        await waitUntil(async () => {
          const { last_cutover } = await agent.command("volumeStatus", { name: "data" });
          return last_cutover && last_cutover.latency_us.window_max > 0 && last_cutover;
        }, { what: "the cutover to be measured" }) as CutoverReport,
      );
    }
    return reports;
  } finally {
    await agent.stop();
  }
}

async function* measure(options: BenchOptions): AsyncIterable<BenchResult> {
  const reports = await cutovers(options);
  const baseline = reports.map((report) => report.latency_us.baseline_p99);
  for (const figure of ["window_p99", "window_max"] as const) {
    const window = reports.map((report) => report.latency_us[figure]);
    const ratios = window.map((value, round) => value / (baseline[round] ?? NaN));
    yield {
      work: `${figure} of a cutover, 4k randrw 70/30 QD4 at 4,000 IOPS`,
      ours: median(window),
      peer: median(baseline),
      peer_name: "baseline_p99 of the minute before",
      unit: "µs",
      better: "lower",
      ratio: median(ratios),
      spread: (Math.max(...ratios) - Math.min(...ratios)) / median(ratios),
      rounds: reports.length,
    };
  }
}

export const bench: Bench = {
  about: "latency around cutovers against the same volume before, under fio",
  needs: { commands: ["fio"], io_uring: true },
  run: measure,
};
