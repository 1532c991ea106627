/**
 * What an attached volume costs while nobody uses it, against the goals: under 0.5 % of a core, and under 64 MiB
 * for the data-plane worker beside its arena. The volume was used before, so that code is compiled, tables are
 * grown, and the arena is touched. Once with a mounted xfs on FUSE and a loop device, once with a connected NBD
 * client that asks nothing.
 *
 * - Thread: processor time of the data-plane thread by its schedstat, in slices of a stretch of 20 s or more;
 *   process: all threads together, over the whole stretch.
 * - Memory: the process's private bytes (smaps), without the arena's mapping, less those of the same program
 *   without a data plane.
 */
import { slotBytes } from "../../src/volume/mod.ts";
import { RawNbd } from "../support/nbd_raw.ts";
import { type PlaneProcess, startPlane } from "../support/plane_process.ts";
import { run } from "../support/process.ts";
import {
  mappingsOf,
  processorSeconds,
  threadSeconds,
  threadsNamed,
} from "../support/process_costs.ts";
import { tempDir } from "../support/temp.ts";
import { type Bench, type BenchOptions, type BenchResult, median } from "./pairs.ts";

const MIB = 2 ** 20;
const SIZE_BYTES = 512 * MIB;
const STRETCH_S_MIN = 20;
const PERCENT_MAX = 0.5, MEMORY_MIB_MAX = 64;
/** What the runtime calls the first worker's thread. */
const THREAD_NAME = "worker-1";
/** The data plane's own defaults. */
const ARENA_BYTES = 128 * slotBytes(MIB);
/** The kernel may join the arena with a small neighbour into one mapping. */
const NEIGHBOUR_BYTES_MAX = 8 * MIB;

interface Goal {
  readonly work: string;
  readonly unit: string;
  readonly goal: number;
}

async function* measure(options: BenchOptions): AsyncIterable<BenchResult> {
  Deno.env.set("TMPDIR", "/dev/shm");
  using temp = tempDir("bench");
  const bare_bytes = await bareBytes(temp.file("bare"));
  for (const frontend of ["fuse", "nbd"] as const) {
    const directory = temp.file(frontend), mount = temp.file("mount"), image = temp.file("image");
    Deno.mkdirSync(directory);
    Deno.mkdirSync(mount, { recursive: true });
    Deno.writeFileSync(image, new Uint8Array());
    Deno.truncateSync(image, SIZE_BYTES);
    const filesystem = { type: "xfs", mount };
    const volume = { image, frontend, ...(frontend === "fuse" ? { filesystem } : {}) };
    await using plane = await startPlane({ directory, volume });
    yield* await measureIdle(plane, { ...options, mount, bare_bytes });
  }
}

async function measureIdle(
  plane: PlaneProcess,
  options: BenchOptions & { mount: string; bare_bytes: number },
): Promise<BenchResult[]> {
  const { process: { pid }, exported } = plane;
  const overNbd = exported?.frontend === "nbd";
  const name = overNbd ? "connected NBD client" : "mounted xfs on FUSE and loop";
  await use(
    overNbd ? ["--ioengine=nbd", `--uri=${exported.uri}`] : [
      "--ioengine=io_uring",
      "--direct=1",
      `--filename=${options.mount}/file`,
    ],
  );
  using _client = overNbd ? await RawNbd.enter(socketOf(exported.uri), "bench") : undefined;
  const [thread] = threadsNamed(pid, THREAD_NAME);
  if (thread === undefined) throw new Error(`Cannot measure: no thread is called ${THREAD_NAME}`);
  const slice_s = Math.max(options.seconds, STRETCH_S_MIN / options.rounds);
  const threadPercents: number[] = [];
  const now = () => performance.now() / 1000;
  const began_s = now(), processBefore_s = processorSeconds(pid);
  for (let round = 0; round < options.rounds; round++) {
    options.signal?.throwIfAborted();
    const from_s = now(), before_s = threadSeconds(pid, thread);
    await new Promise((resolve) => setTimeout(resolve, slice_s * 1000));
    threadPercents.push(100 * (threadSeconds(pid, thread) - before_s) / (now() - from_s));
  }
  const process_percent = 100 * (processorSeconds(pid) - processBefore_s) / (now() - began_s);
  const memory_mib = (workBytes(pid) - options.bare_bytes) / MIB;
  const percent = (work: string) => ({ work: `${name}: ${work}`, unit: "% of a core" });
  return [
    against({ ...percent("data-plane thread"), goal: PERCENT_MAX }, threadPercents),
    against({ ...percent("whole process"), goal: PERCENT_MAX }, [process_percent]),
    against({ work: `${name}: worker's memory`, unit: "MiB", goal: MEMORY_MIB_MAX }, [memory_mib]),
  ];
}

/** Fills every slot and compiles the hot path. */
async function use(target: readonly string[]): Promise<void> {
  await run("fio", [
    "--name=use",
    ...target,
    "--rw=randrw",
    "--bs=4k-1m",
    "--iodepth=64",
    "--size=128m",
    "--time_based",
    "--runtime=3",
  ]);
}

/** Private bytes of the program that has loaded the same code and started no data plane. */
async function bareBytes(directory: string): Promise<number> {
  await using bare = await startPlane({ directory });
  return sum(mappingsOf(bare.process.pid).map(({ private_bytes }) => private_bytes));
}

/** Private bytes of all but the arena. @throws {Error} when the arena is not among the mappings. */
function workBytes(pid: number): number {
  const mappings = mappingsOf(pid);
  const isArena = ({ size_bytes }: { size_bytes: number }) =>
    size_bytes >= ARENA_BYTES && size_bytes <= ARENA_BYTES + NEIGHBOUR_BYTES_MAX;
  const arena = mappings.filter(isArena);
  if (arena.length !== 1) throw new Error(`Cannot tell the arena: ${arena.length} mappings fit`);
  return sum(mappings.filter((one) => !isArena(one)).map(({ private_bytes }) => private_bytes));
}

function against({ work, unit, goal }: Goal, figures: readonly number[]): BenchResult {
  const ours = median(figures);
  return {
    work,
    ours,
    peer: goal,
    peer_name: "goal",
    unit,
    better: "lower",
    ratio: ours / goal,
    spread: ours === 0 ? 0 : (Math.max(...figures) - Math.min(...figures)) / ours,
    rounds: figures.length,
  };
}

function socketOf(uri: string): string {
  return decodeURIComponent(/socket=(.*)$/.exec(uri)?.[1] ?? "");
}

function sum(figures: readonly number[]): number {
  return figures.reduce((total, figure) => total + figure, 0);
}

export const bench: Bench = {
  about: "processor time and memory of an attached volume that nobody uses, against the goals",
  needs: { commands: ["fio", "mkfs.xfs"], io_uring: true, root: true, fuse: true, loop: true },
  run: measure,
};
