/** Serving a tmpfs file over NBD: PSMA, nbdkit and qemu-nbd under the same fio jobs, in turns. */
import { silentLog } from "../../src/core/mod.ts";
import { DataPlane } from "../../src/dataplane/mod.ts";
import { thinPlacement } from "../support/planes.ts";
import { run, start, waitUntil } from "../support/process.ts";
import { tempDir } from "../support/temp.ts";
import { type Bench, type BenchOptions, type BenchResult, measurePair } from "./pairs.ts";

const SIZE_BYTES = 256 * 2 ** 20;

const JOBS = [
  { work: "4k randread QD1", rw: "randread", bs: "4k", depth: 1 },
  { work: "4k randread QD32", rw: "randread", bs: "4k", depth: 32 },
  { work: "4k randwrite QD32", rw: "randwrite", bs: "4k", depth: 32 },
  { work: "256k read QD8", rw: "read", bs: "256k", depth: 8 },
  { work: "256k write QD8", rw: "write", bs: "256k", depth: 8 },
] as const;

type Job = typeof JOBS[number];

interface FioJob {
  readonly read: { readonly iops: number };
  readonly write: { readonly iops: number };
}

/** I/O operations per second of one fio job against an NBD export. */
async function iops(uri: string, job: Job, seconds: number): Promise<number> {
  const { stdout } = await run("fio", [
    "--name=bench",
    "--ioengine=nbd",
    `--uri=${uri}`,
    `--rw=${job.rw}`,
    `--bs=${job.bs}`,
    `--iodepth=${job.depth}`,
    `--size=${SIZE_BYTES}`,
    "--time_based",
    `--runtime=${seconds}`,
    "--output-format=json",
  ]);
  const result = JSON.parse(stdout.slice(stdout.indexOf("{"))) as { jobs: FioJob[] };
  const [first] = result.jobs;
  return (first?.read.iops ?? 0) + (first?.write.iops ?? 0);
}

async function* measure(options: BenchOptions): AsyncIterable<BenchResult> {
  Deno.env.set("TMPDIR", "/dev/shm");
  using temp = tempDir("bench");
  const socket = (name: string) => temp.file(`${name}.sock`);
  const peerUri = (name: string) => `nbd+unix:///?socket=${socket(name)}`;
  const plane = await DataPlane.start({ log: silentLog });
  try {
    await plane.command("serveNbd", { listen: { path: socket("ours") }, fenced: false });
    await plane.command("openVolume", {
      name: "bench",
      directory: temp.file("bench"),
      max_size_bytes: SIZE_BYTES,
      initial: thinPlacement(temp.file("ours.img"), SIZE_BYTES),
    });
    const { uri } = await plane.command("exportNbd", { name: "bench", description: "bench" });
    for (const name of ["nbdkit", "qemu-nbd"]) {
      thinPlacement(temp.file(`${name}.img`), SIZE_BYTES);
    }
    await using _nbdkit = start("nbdkit", [
      "-f",
      "-U",
      socket("nbdkit"),
      "file",
      temp.file("nbdkit.img"),
    ]);
    await using _qemu = start("qemu-nbd", [
      "-t",
      "-f",
      "raw",
      "-e",
      "16",
      "-k",
      socket("qemu-nbd"),
      temp.file("qemu-nbd.img"),
    ]);
    for (const peer_name of ["nbdkit", "qemu-nbd"]) {
      await waitUntil(() => exists(socket(peer_name)), { what: `${peer_name}'s socket` });
      for (const job of JOBS) {
        yield await measurePair({
          work: job.work,
          peer_name,
          unit: "IOPS",
          better: "higher",
          rounds: options.rounds,
          ours: () => iops(uri, job, options.seconds),
          peer: () => iops(peerUri(peer_name), job, options.seconds),
        });
      }
    }
  } finally {
    await plane.stop();
  }
}

function exists(path: string): boolean {
  try {
    Deno.lstatSync(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

export const bench: Bench = {
  about: "4k and 256k I/O over NBD on a tmpfs file, against nbdkit and qemu-nbd",
  needs: { commands: ["fio", "nbdkit", "qemu-nbd"], io_uring: true },
  run: measure,
};
