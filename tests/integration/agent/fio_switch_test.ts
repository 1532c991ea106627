/** fio checks what it writes to a mounted file system while the volume under it moves to a store server and grows. */
import { deepEqual, equal, ok } from "node:assert/strict";
import { parseConfig, type RunningAgent, startAgent } from "../../../src/agent/mod.ts";
import { silentLog, systemClock, systemRng } from "../../../src/core/mod.ts";
import { umountLazily } from "../../../src/sys/mod.ts";
import {
  freePort,
  isRunning,
  run,
  start,
  type Started,
  startPsma,
  waitUntil,
} from "../../support/process.ts";
import { requires } from "../../support/requires.ts";
import { type TempDir, tempDir } from "../../support/temp.ts";

const MIB = 1024 ** 2;
const SIZE_BEFORE_BYTES = 320 * MIB, SIZE_AFTER_BYTES = 640 * MIB;
const KEPT_BYTES = 24 * MIB, BLOCK_BYTES = 4096;

interface FioJob {
  readonly jobname: string;
  readonly error: number;
  readonly write: { readonly total_ios: number };
  readonly read: { readonly total_ios: number };
}

/** A store server in a process of its own, its bytes below `far`. */
async function startStore(temp: TempDir, port: number): Promise<Started> {
  const store = startPsma([
    "store",
    "serve",
    "--path",
    temp.file("far"),
    "--listen",
    `127.0.0.1:${port}`,
    "--nbd-listen",
    `127.0.0.1:${freePort()}`,
  ]);
  await store.line(/Ready/);
  return store;
}

async function startAgentOn(temp: TempDir, storePort: number): Promise<RunningAgent> {
  const { config, problems } = parseConfig(
    `
api: { listen: "unix:${temp.path}/api.sock" }
state_dir: state
sampling: { interval: 1s }
forecast: { horizon: 1m, interval: 1h }
stores:
  near: { type: embedded, path: near }
  far: { type: psma, url: "http://127.0.0.1:${storePort}", token_file: far/.psma-token }
volumes:
  data:
    store: near
    size: ${SIZE_BEFORE_BYTES / MIB}MiB
    max_size: 2GiB
    frontend: fuse
    filesystem: { type: xfs, mount: ${temp.path}/mnt }
    mirror: { store: far, write_through_timeout: 2s }
    scale: { threshold: 100%, approve: advise }
`,
    temp.path,
  );
  deepEqual(problems, []);
  ok(config);
  const agent = await startAgent({
    config,
    version: "0.0.0-test",
    log: silentLog,
    clock: systemClock,
    rng: systemRng,
  });
  await waitUntil(async () => (await agent.status()).ready, {
    what: () => JSON.stringify(agent.events({})),
  });
  return agent;
}

/** Random direct writes, 16 at a time, each block with its checksum. */
function fioArgs(temp: TempDir): string[] {
  return [
    `--directory=${temp.file("mnt")}`,
    "--ioengine=libaio",
    "--direct=1",
    "--rw=randwrite",
    `--bs=${BLOCK_BYTES}`,
    "--iodepth=16",
    "--verify=crc32c",
    "--verify_fatal=1",
    "--verify_state_save=0",
    "--output-format=json",
  ];
}

/** A file that is written once while the volume moves, and checked again long after. */
const KEPT = ["--name=kept", "--filename=kept", `--size=${KEPT_BYTES}`];

/** Writes and reads back what it wrote until it is told to stop. */
const BUSY = [
  "--name=busy",
  "--filename=busy",
  "--size=64m",
  "--verify_backlog=512",
  "--time_based",
  "--runtime=300",
];

/** The one job of a fio process. What fio says about signals and warnings stands around its JSON. */
function jobOf(output: string): FioJob {
  const [json = ""] = /^\{$[^]*^\}$/m.exec(output) ?? [];
  ok(json, output);
  return JSON.parse(json).jobs[0];
}

function isMounted(path: string): boolean {
  return Deno.readTextFileSync("/proc/self/mounts").split("\n")
    .some((line) => line.split(" ")[1] === path);
}

/** What a failed test would leave in the kernel. */
function removedAtTheEnd(temp: TempDir): Disposable {
  return {
    [Symbol.dispose]() {
      for (const mount of [temp.file("mnt"), temp.file("state/volume-state/data/device")]) {
        if (isMounted(mount)) umountLazily(mount);
      }
    },
  };
}

async function scaleToEnd(agent: RunningAgent): Promise<void> {
  const { id } = await agent.scale("data", { size_bytes: SIZE_AFTER_BYTES });
  const operation = await waitUntil(() => {
    const now = agent.operation(id);
    return now.state === "running" ? undefined : now;
  }, { what: () => `the scaling: ${JSON.stringify(agent.events({}))}` });
  deepEqual(operation.error, null);
}

/** @returns what the kernel counts as written to a block device since it is there. */
function writtenBytes(device: string): number {
  const [, , , , , , sectors] = Deno.readTextFileSync(`/sys/block/${device}/stat`).trim()
    .split(/\s+/);
  return Number(sectors) * 512;
}

/** Waits until the application has had this much more written to the device. */
async function waitForWrites(device: string, bytes: number): Promise<void> {
  const from = writtenBytes(device);
  await waitUntil(() => writtenBytes(device) >= from + bytes, { what: "fio to write" });
}

/** @returns the highest rate that the forecaster's history holds. */
async function fastestSampled(agent: RunningAgent, metric: string): Promise<number> {
  const to_ms = systemClock.nowMs();
  const from_ms = to_ms - 300_000;
  const points = await agent.history("data", { metric, from_ms, to_ms, step_ms: 1000 });
  return Math.max(0, ...points.map(({ value }) => value));
}

Deno.test({
  name: "agent: fio verifies every block on a mounted file system that moves to a store and grows",
  ...requires({
    io_uring: true,
    root: true,
    fuse: true,
    loop: true,
    commands: ["fio", "mkfs.xfs", "xfs_repair"],
    filesystems: ["xfs"],
  }),
  async fn() {
    using temp = tempDir();
    using _leftovers = removedAtTheEnd(temp);
    const port = freePort();
    await using _store = await startStore(temp, port);
    {
      const agent = await startAgentOn(temp, port);
      await using _stop = { [Symbol.asyncDispose]: () => agent.stop() };
      const before = await waitUntil(async () => {
        const view = await agent.volume("data");
        return view.filesystem ? view : undefined;
      }, { what: "the file system's measure" });
      equal(before.epoch, 1);
      const [exported] = before.exports;
      ok(exported?.frontend === "fuse" && exported.device);
      const device = exported.device.slice("/dev/".length);
      {
        await using busy = start("fio", [...fioArgs(temp), ...BUSY]);
        await using kept = start("fio", [...fioArgs(temp), ...KEPT, "--rate=8m"]);
        await waitForWrites(device, 4 * MIB);
        await scaleToEnd(agent);
        await waitForWrites(device, 4 * MIB);
        equal((await kept.status).code, 0, kept.output());
        ok(isRunning(busy.pid), busy.output());
        await busy.end("SIGINT");
        for (const fio of [kept, busy]) {
          await fio.line(/^\}$/m);
          const { error, read, write } = jobOf(fio.output());
          equal(error, 0, fio.output());
          ok(write.total_ios >= 2048 && read.total_ios >= 2048, fio.output());
        }
      }
      const after = await waitUntil(async () => {
        const view = await agent.volume("data");
        const grown =
          (view.filesystem?.size_bytes ?? 0) > 1.8 * (before.filesystem?.size_bytes ?? 0);
        return grown ? view : undefined;
      }, { what: "the larger file system" });
      equal(after.size_bytes, SIZE_AFTER_BYTES);
      equal(after.epoch, 2);
      equal(after.last_cutover?.io_errors, 0);
      equal(after.last_cutover?.digest_mismatches, 0);
      equal(after.active.store, "far");
      ok(
        await fastestSampled(agent, "device_write_bytes_per_s") > MIB,
        "/proc/diskstats is sampled",
      );

      await agent.detach("data");
      equal(isMounted(temp.file("mnt")), false);
      await agent.attach("data");
      const again = await run("fio", [...fioArgs(temp), ...KEPT, "--verify_only"]);
      const { error, read } = jobOf(again.stdout);
      equal(error, 0);
      equal(read.total_ios, KEPT_BYTES / BLOCK_BYTES);
    }
    const [volume] = [...Deno.readDirSync(temp.file("far"))].filter((entry) => entry.isDirectory);
    await run("xfs_repair", ["-n", "-f", temp.file(`far/${volume?.name}/data`)]);
  },
});
