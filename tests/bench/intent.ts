/**
 * What tracking for a mirror costs the application's writes over NBD: 4k at random, 32 at a time; and 4k one at a
 * time, each into a region that nobody has written to for some seconds, so that each waits for the log.
 *
 * Three data planes, each a thread of its own, serve a thin file of its own from one storage, their state
 * directories beside it: one without a mirror, one whose mirror keeps its change map alone (`process`), one whose
 * mirror keeps a write-intent log too (`power`). The mirrors are paused, so nothing is copied. They take turns;
 * before each turn its file is written back, and most regions have become cold since its last one, in the second
 * work all of them. A ratio is without a mirror / with one: for IOPS 1.05× is a cost of 5 %.
 */
import { silentLog } from "../../src/core/mod.ts";
import { DataPlane } from "../../src/dataplane/mod.ts";
import type { MirrorTerms } from "../../src/codec/mod.ts";
import { mirrorTerms } from "../support/mirror_terms.ts";
import { thinPlacement } from "../support/planes.ts";
import { run } from "../support/process.ts";
import { tempDir } from "../support/temp.ts";
import { type FioFigures, type Job, JOBS, runFio } from "./dataplane/fio.ts";
import { folderOf, STORAGES } from "./dataplane/storage.ts";
import {
  type Bench,
  type BenchOptions,
  type BenchResult,
  type Contestant,
  type Figure,
  measureTurns,
} from "./pairs.ts";

const MIB = 2 ** 20;
const REGION_KIB = 4096;
/** Regions of 1 MiB in the small one, of 4 MiB in the large one. */
const SMALL_BYTES = 256 * MIB, LARGE_BYTES = 2048 * MIB;
const RANDOM = "4k randwrite QD32";
const COLD: Job = {
  work: "4k write QD1, each into a cold region",
  rw: `write:${REGION_KIB - 4}k`,
  block_bytes: 4096,
  depth: 1,
  connections: 1,
  p99: true,
  io_bytes: LARGE_BYTES / (REGION_KIB * 1024) * 4096,
};
const KINDS = ["no mirror", "mirror, process", "mirror, power"] as const;
/** Two cycles of cooling, and a little. */
const COLD_AFTER_MS = 5000;

async function* measure(options: BenchOptions): AsyncIterable<BenchResult> {
  const random = JOBS.filter(({ work }) => work === RANDOM);
  const jobs = [
    ...random.map((job) => ({ job, sizeBytes: SMALL_BYTES })),
    ...random.map((job) => ({ job, sizeBytes: LARGE_BYTES })),
    { job: COLD, sizeBytes: LARGE_BYTES },
  ];
  for (const storage of STORAGES.filter((name) => options.storages?.includes(name) ?? true)) {
    for (const { job, sizeBytes } of jobs) {
      const work = `${storage}/${job.work} over ${sizeBytes / MIB} MiB`;
      if (options.work?.test(work) === false) continue;
      Deno.env.set("TMPDIR", folderOf(storage));
      yield* await measureJob({ ...job, work }, sizeBytes, options);
    }
  }
}

async function measureJob(
  job: Job,
  sizeBytes: number,
  { rounds, seconds, signal }: BenchOptions,
): Promise<BenchResult[]> {
  using temp = tempDir("bench");
  await using planes = new AsyncDisposableStack();
  const contestants: Contestant<FioFigures>[] = [];
  for (const kind of KINDS) {
    const directory = temp.file(kind.replace(/\W+/, "-")), image = `${directory}/image`;
    Deno.mkdirSync(directory);
    const { plane, uri } = await serve(directory, image, sizeBytes);
    planes.defer(() => plane.stop());
    if (kind !== "no mirror") {
      await mirror(plane, directory, sizeBytes, kind === "mirror, power" ? "power" : "process");
    }
    const target = ["--ioengine=nbd", `--uri=${uri}`];
    contestants.push({
      name: kind,
      async run() {
        await run("sync", [image]);
        if (job.io_bytes !== undefined && kind === "mirror, power") await pass(COLD_AFTER_MS);
        return await runFio(target, job, seconds, sizeBytes);
      },
    });
  }
  await pass(COLD_AFTER_MS);
  const [ours, ...peers] = contestants;
  if (ours === undefined) return [];
  return await measureTurns({ figures: figuresOf(job.work), rounds, ours, peers, signal });
}

async function serve(
  directory: string,
  image: string,
  sizeBytes: number,
): Promise<{ plane: DataPlane; uri: string }> {
  const plane = await DataPlane.start({ log: silentLog });
  await plane.command("serveNbd", { listen: { path: `${directory}/sock` }, fenced: false });
  await plane.command("openVolume", {
    name: "data",
    directory: `${directory}/state`,
    max_size_bytes: sizeBytes,
    initial: thinPlacement(image, sizeBytes),
  });
  const { uri } = await plane.command("exportNbd", { name: "data", description: "bench" });
  return { plane, uri };
}

async function mirror(
  plane: DataPlane,
  directory: string,
  sizeBytes: number,
  durability: MirrorTerms["durability"],
): Promise<void> {
  await plane.command("startMirror", {
    volume: "data",
    id: "m1",
    target: thinPlacement(`${directory}/target`, sizeBytes),
    terms: mirrorTerms({ durability }),
    compare: false,
  });
  await plane.command("pauseMirror", { volume: "data" });
}

function pass(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

function figuresOf(work: string): Figure<FioFigures>[] {
  return [
    { work, unit: "IOPS", better: "higher", of: ({ operations_per_s }) => operations_per_s },
    { work: `${work}, p99 latency`, unit: "µs", better: "lower", of: ({ p99_us }) => p99_us },
  ];
}

export const bench: Bench = {
  about: "what a mirror's change map and its write-intent log cost random writes",
  needs: { commands: ["fio", "findmnt"], io_uring: true },
  storages: STORAGES,
  run: measure,
};
