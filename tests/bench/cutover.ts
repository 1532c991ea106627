/**
 * What an application notices of cutovers, while fio reads and writes 4k at random over NBD.
 *
 * - `window_p99`, `window_max`: as the volume itself reports them, from the first step to a second after the
 *   commit, against its minute before.
 * - pause: how much longer the longest request of a stretch took than the longest of a quiet one of the same
 *   length (`--seconds`) before; 0 where it did not. The stretch begins with the order to switch. Since the
 *   longest of two quiet stretches differ as well, the peer is a third, quiet one in the cutover's place.
 *
 * 200 cutovers: `deno task bench cutover --rounds 200 --seconds 0.5`, about ten minutes.
 */
import { silentLog } from "../../src/core/mod.ts";
import { type CutoverReport, DataPlane } from "../../src/dataplane/mod.ts";
import { mirrorTerms } from "../support/mirror_terms.ts";
import { FarStore, serveVolume, thinPlacement } from "../support/planes.ts";
import { waitUntil } from "../support/process.ts";
import { tempDir } from "../support/temp.ts";
import {
  type LatencyLog,
  type LoadKind,
  now_ms,
  pass,
  quantile,
  startLoad,
  type Stretch,
} from "./mirror/load.ts";
import { type Bench, type BenchOptions, type BenchResult, median } from "./pairs.ts";

const MIB = 2 ** 20;
const SIZE_BYTES = 64 * MIB;
const LOAD: LoadKind = {
  work: "4k randrw 30/70 QD4 at 4,000 IOPS",
  depth: 4,
  reads_percent: 30,
  rate: 2000,
};

/** Three stretches of one length, and what the volume says of the cutover that the last one begins with. */
interface Round {
  readonly before: Stretch;
  readonly quiet: Stretch;
  readonly window: Stretch;
  readonly report: CutoverReport;
}

async function cutovers(options: BenchOptions): Promise<{ rounds: Round[]; log: LatencyLog }> {
  Deno.env.set("TMPDIR", "/dev/shm");
  using temp = tempDir("bench");
  await using far = await FarStore.start(temp);
  let measured = 0;
  const agent = await DataPlane.start({
    log: silentLog,
    questions: far.questions,
    onEvent: ({ type }) => {
      if (type === "cutover.measured") measured++;
    },
  });
  try {
    const uri = await serveVolume(agent, temp, {
      max_size_bytes: 1024 * MIB,
      initial: thinPlacement(temp.file("first"), SIZE_BYTES),
    });
    await using load = await startLoad(uri, LOAD, SIZE_BYTES, temp.path);
    await pass(500);
    const rounds: Round[] = [];
    for (let number = 1; number <= options.rounds; number++) {
      options.signal?.throwIfAborted();
      const round = await cutOnce(agent, far, number, options.seconds);
      await waitUntil(() => measured === number, { what: "the cutover to be measured" });
      const { last_cutover } = await agent.command("volumeStatus", { name: "data" });
      if (last_cutover === null) throw new Error("Cannot measure: the cutover is not reported");
      rounds.push({ ...round, report: last_cutover });
      await agent.command("retireBackup", { volume: "data" });
      if (number > 1) await far.remove(`v${number - 1}`);
    }
    return { rounds, log: await load.end() };
  } finally {
    await agent.stop();
  }
}

async function cutOnce(
  agent: DataPlane,
  far: FarStore,
  number: number,
  seconds: number,
): Promise<Omit<Round, "report">> {
  const before = await stretchOf(seconds), quiet = await stretchOf(seconds);
  await agent.command("startMirror", {
    volume: "data",
    id: `m${number}`,
    target: await far.create(`v${number}`, SIZE_BYTES + number * 4096, number + 1),
    terms: mirrorTerms({ resync_interval_ms: 100 }),
    compare: false,
  });
  await agent.command("convergeMirror", { volume: "data", timeout_ms: 60_000 });
  const passing = stretchOf(seconds);
  await agent.command("switchVolume", { volume: "data", timeout_ms: 60_000 });
  const window = await passing;
  return { before, quiet, window };
}

async function stretchOf(seconds: number): Promise<Stretch> {
  const from_ms = now_ms();
  await pass(seconds * 1000);
  return { from_ms, to_ms: from_ms + seconds * 1000 };
}

async function* measure(options: BenchOptions): AsyncIterable<BenchResult> {
  const { rounds, log } = await cutovers(options);
  const reports = rounds.map(({ report }) => report);
  const baseline = reports.map(({ latency_us }) => latency_us.baseline_p99);
  for (const figure of ["window_p99", "window_max"] as const) {
    const window = reports.map(({ latency_us }) => latency_us[figure]);
    const ratios = window.map((value, round) => value / (baseline[round] ?? NaN));
    yield {
      work: `${figure} of a cutover, ${LOAD.work}`,
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
  yield* pauses(rounds, log);
}

/** Bounds that are worth knowing of each stretch, beside the same of quiet ones. */
function* pauses(rounds: readonly Round[], log: LatencyLog): Iterable<BenchResult> {
  const before = rounds.map((round) => log.sorted(round.before));
  const windows = rounds.map((round) => log.sorted(round.window));
  const quiet = rounds.map((round) => log.sorted(round.quiet));
  const usual_us = quantile(Float64Array.from(before.flatMap((one) => [...one])).sort(), 0.999);
  const pausesOf = (stretches: readonly Float64Array[]) =>
    Float64Array.from(
      stretches,
      (own, round) => Math.max(0, (own.at(-1) ?? NaN) - (before[round]?.at(-1) ?? NaN)),
    ).sort();
  const above = (figures: Float64Array) =>
    figures.filter((figure) => figure > usual_us).length / figures.length * 100;
  const all = (stretches: readonly Float64Array[]) =>
    Float64Array.from(stretches.flatMap((one) => [...one]));
  const row = (work: string, unit: string, ours: number, peer: number): BenchResult => ({
    work: `${work}, ${LOAD.work}`,
    ours,
    peer,
    peer_name: "no cutover",
    unit,
    better: "lower",
    ratio: ours === peer ? 1 : ours / peer,
    spread: 0,
    rounds: rounds.length,
  });
  const ours = pausesOf(windows), peer = pausesOf(quiet);
  for (const [name, level] of [["median", 0.5], ["p99", 0.99], ["longest", 1]] as const) {
    yield row(`pause at a cutover, ${name}`, "µs", quantile(ours, level), quantile(peer, level));
  }
  yield row(
    `pauses above ${Math.round(usual_us)} µs, the p99.9 before`,
    "%",
    above(ours),
    above(peer),
  );
  yield row("requests above the p99.9 before", "%", above(all(windows)), above(all(quiet)));
}

export const bench: Bench = {
  about: "latency around cutovers against the same volume before, and the pause, under fio",
  needs: { commands: ["fio"], io_uring: true },
  run: measure,
};
