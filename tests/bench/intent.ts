/**
 * What tracking for a mirror costs the application's writes: 4k at random, 32 at a time, over NBD.
 *
 * Three data planes, each a thread of its own, serve a thin file of its own from one storage, their state
 * directories beside it: one without a mirror, one whose mirror keeps its change map alone (`process`), one whose
 * mirror keeps a write-intent log too (`power`). The mirrors are paused, so nothing is copied. They take turns;
 * before each turn its file is written back, and every region has become cold meanwhile: what a run pays for the
 * log is there. A ratio is without a mirror / with one: 1.05 is a cost of 5 %.
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
/** Regions of 1 MiB in the one, of 4 MiB in the other. */
const SIZES_BYTES = [256 * MIB, 2048 * MIB];
const WORK = "4k randwrite QD32";
const KINDS = ["no mirror", "mirror, process", "mirror, power"] as const;
/** Two cycles of cooling, and a little. */
const COLD_AFTER_MS = 5000;

async function* measure(options: BenchOptions): AsyncIterable<BenchResult> {
  const job = JOBS.find(({ work }) => work === WORK);
  if (job === undefined) throw new Error(`Cannot measure: there is no job ${WORK}`);
  for (const storage of STORAGES.filter((name) => options.storages?.includes(name) ?? true)) {
    for (const size_bytes of SIZES_BYTES) {
      const work = `${storage}/${WORK} over ${size_bytes / MIB} MiB`;
      if (options.work?.test(work) === false) continue;
      Deno.env.set("TMPDIR", folderOf(storage));
      yield* await measureSize({ ...job, work }, size_bytes, options);
    }
  }
}

async function measureSize(
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
        return await runFio(target, job, seconds, sizeBytes);
      },
    });
  }
  await new Promise((resolve) => setTimeout(resolve, COLD_AFTER_MS));
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
