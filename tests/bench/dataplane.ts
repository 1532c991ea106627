/**
 * The data plane against nbdkit, qemu-nbd and qemu-storage-daemon: the same fio jobs on equal files, in turns.
 *
 * Equal for everyone: a process of its own on the same CPUs, nothing pinned, nobody's priority raised; a file of
 * its own of 256 MiB, filled with the same random bytes; storage/nbd over a Unix socket (a connection a fio job),
 * storage/fuse over a loop device with direct I/O and 512-byte blocks, fio's io_uring engine on it; dirty pages
 * are written back between runs.
 * - psma: a data plane with one file volume, as `psma run` has it, default settings, page cache.
 * - nbdkit: file plugin, its default 16 threads, page cache.
 * - qemu-nbd: raw, -e 16. On tmpfs cache=none and aio=native, its fastest mode there for 4 KiB (tmpfs takes
 *   O_DIRECT); on disk cache=writeback and aio=io_uring, so that everybody uses the page cache.
 * - qemu-storage-daemon: the same two modes, and over FUSE both of them also on tmpfs, because the second is the
 *   faster one for large writes. Its FUSE export has an I/O thread; its NBD export has none, because QEMU 7.2
 *   aborts when a client of an NBD export with an I/O thread disconnects.
 *
 * Processor time is the server's process's own, all its threads and io_uring workers included; what the kernel
 * does for it elsewhere (the loop device's workers) counts for nobody.
 */
import { processorSeconds } from "../support/process_costs.ts";
import { run } from "../support/process.ts";
import { tempDir } from "../support/temp.ts";
import { type FioFigures, type Job, JOBS, runFio, SIZE_BYTES } from "./dataplane/fio.ts";
import { DATAPLANE_PART, writePart } from "./dataplane/page.ts";
import {
  type Frontend,
  FRONTENDS,
  OURS,
  PEERS,
  type Served,
  type Server,
} from "./dataplane/servers.ts";
import { folderOf, type Storage, STORAGES } from "./dataplane/storage.ts";
import {
  type Bench,
  type BenchOptions,
  type BenchResult,
  type Contestant,
  type Figure,
  measureTurns,
} from "./pairs.ts";

const MIB = 2 ** 20, GIB = 2 ** 30;

/** What one run of one server gives. */
interface Sample extends FioFigures {
  /** The server's own processor time. */
  readonly cpu_s: number;
}

/** A server that serves, ready for its turns. */
interface Entrant {
  readonly name: string;
  readonly image: string;
  readonly served: Served;
}

async function* measure(options: BenchOptions): AsyncIterable<BenchResult> {
  const storages = STORAGES.filter((name) => options.storages?.includes(name) ?? true);
  for (const storage of storages) {
    for (const frontend of FRONTENDS) yield* measureFrontend(frontend, storage, options);
  }
}

async function* measureFrontend(
  frontend: Frontend,
  storage: Storage,
  options: BenchOptions,
): AsyncIterable<BenchResult> {
  const jobs = jobsOf(frontend).map((job) => ({ ...job, work: workOf(job, frontend, storage) }))
    .filter(({ work }) => options.work?.test(work) ?? true);
  const peers = PEERS.filter(({ name, serve, onlyTmpfs }) =>
    serve[frontend] !== undefined && (storage === "tmpfs" || !onlyTmpfs) &&
    (options.peers?.includes(name) ?? true)
  );
  if (jobs.length === 0 || peers.length === 0) return;
  Deno.env.set("TMPDIR", folderOf(storage));
  using temp = tempDir("bench");
  await using stack = new AsyncDisposableStack();
  const filled = temp.file("filled");
  fill(filled);
  const entrants: Entrant[] = [];
  for (const server of [OURS, ...peers]) {
    const entrant = await enter(server, frontend, { storage, filled, directory: temp.path });
    stack.use(entrant.served);
    entrants.push(entrant);
  }
  for (const job of jobs) {
    const [ours, ...others] = entrants.map((entrant) => contestant(entrant, job, options.seconds));
    if (ours === undefined) return;
    const { rounds, signal } = options;
    yield* await measureTurns({ figures: figuresOf(job), rounds, ours, peers: others, signal });
  }
}

/** A loop device has one queue to its server: several connections are NBD's. */
function jobsOf(frontend: Frontend): readonly Job[] {
  return frontend === "nbd" ? JOBS : JOBS.filter(({ connections }) => connections === 1);
}

function workOf(job: Job, frontend: Frontend, storage: Storage): string {
  return `${storage}/${frontend} ${job.work}`;
}

async function enter(
  { name, serve }: Server,
  frontend: Frontend,
  { storage, filled, directory }: { storage: Storage; filled: string; directory: string },
): Promise<Entrant> {
  const image = `${directory}/${name}.img`, own = `${directory}/${name}`;
  Deno.copyFileSync(filled, image);
  Deno.mkdirSync(own);
  const served = await serve[frontend]?.({ image, directory: own, tmpfs: storage === "tmpfs" });
  if (served === undefined) throw new Error(`Cannot measure ${name}: it has no ${frontend}`);
  return { name, image, served };
}

function fill(path: string): void {
  using file = Deno.openSync(path, { write: true, createNew: true });
  const bytes = new Uint8Array(65_536);
  for (let at = 0; at < SIZE_BYTES;) {
    crypto.getRandomValues(bytes);
    at += file.writeSync(bytes);
  }
}

function figuresOf({ work, block_bytes, p99 }: Job): Figure<Sample>[] {
  const rate: Figure<Sample> = block_bytes < MIB / 16
    ? { work, unit: "IOPS", better: "higher", of: ({ operations_per_s }) => operations_per_s }
    : { work, unit: "MiB/s", better: "higher", of: ({ bytes_per_s }) => bytes_per_s / MIB };
  const latency: Figure<Sample> = {
    work: `${work}, p99 latency`,
    unit: "µs",
    better: "lower",
    of: ({ p99_us }) => p99_us,
  };
  const cpu = { work: `${work}, server CPU`, better: "lower" } as const;
  return [
    rate,
    ...(p99 ? [latency] : []),
    { ...cpu, unit: "s/million I/Os", of: ({ cpu_s, operations }) => cpu_s / operations * 1e6 },
    { ...cpu, unit: "s/GiB", of: ({ cpu_s, bytes }) => cpu_s / bytes * GIB },
  ];
}

function contestant(
  { name, image, served: { pid, target } }: Entrant,
  job: Job,
  seconds: number,
): Contestant<Sample> {
  return {
    name,
    async run() {
      await run("sync", [image]);
      const before_s = processorSeconds(pid);
      const result = await runFio(target, job, seconds);
      return { ...result, cpu_s: processorSeconds(pid) - before_s };
    },
  };
}

export const bench: Bench = {
  about: "4k and 256k I/O over NBD, and over FUSE and a loop device, against nbdkit and QEMU's",
  needs: {
    commands: ["fio", "nbdkit", "qemu-nbd", "qemu-storage-daemon", "losetup", "findmnt"],
    io_uring: true,
    root: true,
    fuse: true,
    loop: true,
  },
  peers: PEERS.map(({ name }) => name),
  storages: STORAGES,
  run: measure,
  write: (results, options) => writePart(DATAPLANE_PART, results, options),
};
