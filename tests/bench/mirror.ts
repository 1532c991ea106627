/**
 * The mirror against QEMU's and nbdcopy, on the same file, under the same application, in turns.
 *
 * Equal for everyone: one file of 1 GiB (`--size`), full of random bytes, as the source, through the page cache;
 * a new, thin file beside it as the target, behind an NBD server that is a process of its own, reached by a Unix
 * socket; the application is one fio with the nbd engine on the side's own export; no limit of rate; nothing is
 * pinned, nobody's priority raised.
 * - psma: a process with a data plane, and `psma store serve`'s server for the target. Every extent is digested
 *   before it is sent and again by the store from what it persisted; the target is 1 MiB larger than the source.
 *   Ready is write-through, nothing dirty, everything checked, both sides flushed.
 * - qemu background, qemu write-blocking: qemu-storage-daemon, `blockdev-mirror` with `sync=full` and a granularity
 *   of 64 KiB in the copy mode of the name, source with `aio=io_uring`, nbdkit's file server for the target. Ready
 *   is BLOCK_JOB_READY. Nothing is checked; source and target are of one size, because QEMU takes no other.
 * - nbdcopy: `nbdcopy --flush FILE URI`, its default threads and connections; nothing is checked. Onto nbdkit's
 *   file server, and ("nbdcopy to psma's store") onto the very server that PSMA mirrors to.
 *
 * Under load: sync is from the order to mirror until ready; ready is the time after that, while everything
 * written goes to both (in the background, with QEMU's other mode); then copying pauses for 0.17 s and resync is
 * from going on until ready again; pivot is from the order to switch until half a second after its commit.
 * Copying and pausing in turns is PSMA's alone, within one initial sync: its stretches with copies against those
 * without, which other users of the machine disturb alike.
 * Who is not ready after 120 s counts with 120 s and has no later stretches; resync and switch end after 20 s.
 * A resync of QEMU's write-blocking mode has nothing to do and is left out: it writes to both also while paused.
 */
import { run } from "../support/process.ts";
import { tempDir } from "../support/temp.ts";
import { writePart } from "./dataplane/page.ts";
import { folderOf, type Storage, STORAGES } from "./dataplane/storage.ts";
import {
  copyRateToNbdkit,
  copyRateToStore,
  mirrorRate,
  type Resync,
  resync,
} from "./mirror/idle.ts";
import { copyInTurns } from "./mirror/in_turns.ts";
import { LOADS } from "./mirror/load.ts";
import { MIRROR_PART } from "./mirror/page.ts";
import { PSMA } from "./mirror/psma.ts";
import { QEMU_BACKGROUND, QEMU_WRITE_BLOCKING } from "./mirror/qemu.ts";
import type { SideKind, SideOptions } from "./mirror/side.ts";
import { figuresUnderLoad, liveUnderLoad } from "./mirror/under_load.ts";
import {
  type Bench,
  type BenchOptions,
  type BenchResult,
  type Contestant,
  type Figure,
  measureTurns,
} from "./pairs.ts";

const MIB = 2 ** 20;
const SIZE_BYTES = 1024 * MIB;
/** Stretches of copying, and of none, for each round that was asked for. */
const PAIRS_PER_ROUND = 10;
const QEMU: readonly SideKind[] = [QEMU_BACKGROUND, QEMU_WRITE_BLOCKING];
const COPIERS = [
  { name: "nbdcopy", copy: copyRateToNbdkit },
  { name: "nbdcopy to psma's store", copy: copyRateToStore },
];

/** One kind of run. */
interface Work {
  readonly work: string;
  measure(place: Place, options: BenchOptions): Promise<BenchResult[]>;
}

/** A source on a storage. */
interface Place {
  readonly storage: Storage;
  readonly image: string;
  readonly size_bytes: number;
}

async function* measure(options: BenchOptions): AsyncIterable<BenchResult> {
  const { size_bytes = SIZE_BYTES } = options;
  for (const storage of STORAGES.filter((name) => options.storages?.includes(name) ?? true)) {
    const works = worksOn(storage).filter(({ work }) => options.work?.test(work) ?? true);
    if (works.length === 0) continue;
    Deno.env.set("TMPDIR", folderOf(storage));
    using temp = tempDir("bench");
    const image = temp.file("source");
    fill(image, size_bytes);
    for (const { measure } of works) yield* await measure({ storage, image, size_bytes }, options);
  }
}

function worksOn(storage: Storage): Work[] {
  const named = (work: string, measure: (work: string) => Work["measure"]): Work => {
    const name = `${storage}/${work}`;
    return { work: name, measure: measure(name) };
  };
  return [
    named("idle sync", idleSync),
    named("idle resync of 1 % of the chunks, 4 KiB each", (work) => idleResync(work, 0.01)),
    named("idle resync of 10 % of the chunks, 4 KiB each", (work) => idleResync(work, 0.1)),
    ...LOADS.map((load) =>
      named(load.work, (work) => async (place, options) => {
        const { seconds } = options;
        const run = (kind: SideKind) =>
          inTurn(place, kind, (side) => liveUnderLoad(kind, { ...side, ...place, load, seconds }));
        return await turns(
          figuresUnderLoad(work),
          run(PSMA),
          chosen(QEMU, options).map(run),
          options,
        );
      })
    ),
    named(`${LOADS[0].work}, copying and pausing in turns`, copyingInTurns),
  ];
}

function copyingInTurns(work: string): Work["measure"] {
  return async (place, { rounds, seconds, signal }) => {
    const measure = inTurn(
      place,
      PSMA,
      (side) =>
        copyInTurns(work, PSMA, {
          ...side,
          load: LOADS[0],
          size_bytes: place.size_bytes,
          seconds,
          pairs: rounds * PAIRS_PER_ROUND,
          signal,
        }),
    );
    return await measure.run();
  };
}

function idleSync(work: string): Work["measure"] {
  return async (place, options) => {
    const run = (kind: SideKind) => inTurn(place, kind, (side) => mirrorRate(kind, side));
    const copiers = chosen(COPIERS, options).map((copier) => inTurn(place, copier, copier.copy));
    const figure: Figure<number> = {
      work,
      unit: "MiB/s",
      better: "higher",
      of: (bytes_per_s) => bytes_per_s / MIB,
    };
    const peers = [...copiers, ...chosen(QEMU, options).map(run)];
    return await turns([figure], run(PSMA), peers, options);
  };
}

function idleResync(work: string, share: number): Work["measure"] {
  return async (place, options) => {
    const run = (kind: SideKind) =>
      inTurn(place, kind, (side) => resync(kind, { ...side, share, counted: true }));
    const lower = (name: string, unit: string, of: (resync: Resync) => number) => ({
      work: `${work}: ${name}`,
      unit,
      better: "lower" as const,
      of: (sample: Resync | undefined) => sample && of(sample),
    });
    const figures = [
      lower("sent per byte of dirty chunks", "bytes", ({ sent_per_dirty }) => sent_per_dirty),
      lower("sent per byte changed", "bytes", ({ sent_per_changed }) => sent_per_changed),
      lower("time", "s", ({ seconds }) => seconds),
    ];
    return await turns(figures, run(PSMA), chosen([QEMU_BACKGROUND], options).map(run), options);
  };
}

function chosen<T extends { readonly name: string }>(
  all: readonly T[],
  { peers }: BenchOptions,
): T[] {
  return all.filter(({ name }) => peers?.includes(name) ?? true);
}

/** A run in a folder of its own, which goes with it, after everything before it has reached the disk. */
function inTurn<Sample>(
  { image, storage }: Place,
  { name }: { readonly name: string },
  measure: (options: SideOptions) => Promise<Sample>,
): Contestant<Sample> {
  return {
    name,
    async run() {
      using own = tempDir("side");
      await run("sync", ["--file-system", image]);
      return await measure({ image, storage, directory: own.path, counted: false });
    },
  };
}

/** Every run starts its own processes on its own files: there is nothing to warm up. */
async function turns<Sample>(
  figures: readonly Figure<Sample>[],
  ours: Contestant<Sample>,
  peers: readonly Contestant<Sample>[],
  { rounds, signal }: BenchOptions,
): Promise<BenchResult[]> {
  if (peers.length === 0) return [];
  return await measureTurns({ figures, rounds, ours, peers, signal, warmUp: false });
}

function fill(path: string, size_bytes: number): void {
  using file = Deno.openSync(path, { write: true, createNew: true });
  const bytes = new Uint8Array(65_536);
  for (let at = 0; at < size_bytes;) {
    crypto.getRandomValues(bytes);
    at += file.writeSync(bytes.subarray(0, Math.min(bytes.length, size_bytes - at)));
  }
}

export const bench: Bench = {
  about: "mirrors and pivots under load, syncs and resyncs without, against QEMU's and nbdcopy",
  needs: {
    commands: ["fio", "nbdkit", "nbdcopy", "qemu-storage-daemon", "findmnt"],
    io_uring: true,
  },
  peers: [...COPIERS, ...QEMU].map(({ name }) => name),
  storages: STORAGES,
  run: measure,
  write: (results, options) => writePart(MIRROR_PART, results, options),
};
