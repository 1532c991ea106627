/** The agent with a mounted file system: FUSE, loop device, mkfs, growth, restart, and a killed agent. */
import { deepEqual, equal, match, ok, rejects } from "node:assert/strict";
import { parseConfig, startAgent } from "../../../src/agent/mod.ts";
import { silentLog, systemClock, systemRng } from "../../../src/core/mod.ts";
import { growthFault } from "../../../src/dataplane/mod.ts";
import { umountLazily } from "../../../src/sys/mod.ts";
import { childrenOf, isRunning, psma, startPsma, waitUntil } from "../../support/process.ts";
import { requires } from "../../support/requires.ts";
import { type TempDir, tempDir } from "../../support/temp.ts";

const MiB = 1024 ** 2;

function configText(temp: TempDir, { type = "xfs", size = "320MiB" } = {}): string {
  return `
api: { listen: "unix:${temp.path}/api.sock" }
state_dir: state
sampling: { interval: 200ms }
forecast: { horizon: 1m, interval: 1h }
stores:
  near: { type: embedded, path: near }
  far: { type: embedded, path: far }
volumes:
  data:
    size: ${size}
    max_size: 2GiB
    frontend: fuse
    filesystem: { type: ${type}, mount: ${temp.path}/mnt }
`;
}

async function start(temp: TempDir, volume?: { type: string; size: string }) {
  const { config, problems } = parseConfig(configText(temp, volume), temp.path);
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

function isMounted(path: string): boolean {
  return Deno.readTextFileSync("/proc/self/mounts").split("\n")
    .some((line) => line.split(" ")[1] === path);
}

const needs = requires({
  io_uring: true,
  root: true,
  fuse: true,
  loop: true,
  commands: ["mkfs.xfs"],
  filesystems: ["xfs"],
});

Deno.test({
  name: "agent: a mounted file system grows with its volume and is there after a restart",
  ...needs,
  async fn() {
    using temp = tempDir();
    const file = temp.file("mnt/hello.txt");
    {
      const agent = await start(temp);
      await using _stop = { [Symbol.asyncDispose]: () => agent.stop() };
      Deno.writeTextFileSync(file, "still here");
      const before = await waitUntil(
        async () => (await agent.volume("data")).filesystem ?? undefined,
        {
          what: "the file system's measure",
        },
      );
      equal(before.type, "xfs");
      using held = Deno.openSync(file);
      await rejects(agent.detach("data"), { code: "state/busy" });
      equal((await agent.volume("data")).state, "attached");
      const { id } = await agent.scale("data", { size_bytes: 640 * MiB });
      const operation = await waitUntil(() => {
        const now = agent.operation(id);
        return now.state === "running" ? undefined : now;
      }, { what: "the scaling" });
      deepEqual(operation.error, null);
      const after = await waitUntil(async () => {
        const { filesystem } = await agent.volume("data");
        return filesystem && filesystem.size_bytes > before.size_bytes ? filesystem : undefined;
      }, { what: "the larger file system" });
      ok(after.size_bytes > 1.8 * before.size_bytes);
      equal(held.statSync().size, "still here".length);
    }
    equal(isMounted(temp.file("mnt")), false);
    const agent = await start(temp);
    await using _stop = { [Symbol.asyncDispose]: () => agent.stop() };
    equal(Deno.readTextFileSync(file), "still here");
    equal((await agent.volume("data")).size_bytes, 640 * MiB);
    equal((await agent.detach("data")).state, "detached");
    equal(isMounted(temp.file("mnt")), false);
    equal((await agent.attach("data")).state, "attached");
    equal(Deno.readTextFileSync(file), "still here");
  },
});

Deno.test({
  name: "agent: an ext4 that could not grow here is not cut over, and says so beforehand",
  ...requires({ io_uring: true, root: true, fuse: true, loop: true, commands: ["mkfs.ext4"] }),
  async fn() {
    using temp = tempDir();
    const agent = await start(temp, { type: "ext4", size: "64MiB" });
    await using _stop = { [Symbol.asyncDispose]: () => agent.stop() };
    const events = (type: string) => agent.events({}).filter((one) => one.type === type);
    const size_bytes = 128 * MiB;
    if (growthFault("ext4") === undefined) {
      deepEqual(events("volume.cannot-grow"), []);
      const { id } = await agent.scale("data", { size_bytes });
      await waitUntil(() => agent.operation(id).state === "done", { what: "the scaling" });
      return;
    }
    match(events("volume.cannot-grow")[0]?.message ?? "", /Cannot scale data: ext4 .*SYS_RESOURCE/);
    await rejects(agent.scale("data", { size_bytes }), { code: "sys/permission" });
    const { id } = await agent.startMirror("data", { size_bytes });
    await waitUntil(() => agent.operation(id).state === "done", { what: "the mirror" });
    await rejects(agent.switchVolume("data"), { code: "sys/permission" });
    const { size_bytes: before, epoch, backup } = await agent.volume("data");
    deepEqual([before, epoch, backup], [64 * MiB, 1, null]);
  },
});

Deno.test({
  name: "agent: killed while it scales, the next one cleans up, has every synced byte and goes on",
  ...needs,
  async fn() {
    using temp = tempDir();
    using _leftovers = removedAtTheEnd(temp);
    const config = temp.file("psma.yaml");
    Deno.writeTextFileSync(config, configText(temp));
    const file = temp.file("mnt/bytes");
    const bytes = Uint8Array.from({ length: 8 * MiB }, (_, at) => (at * 31 + (at >> 8)) & 255);
    const scaling = { exit: 0, within_ms: 60_000 };
    let orphans: number[];
    {
      await using agent = startPsma(["run", "--config", config]);
      await agent.line(/data is served at/);
      writeSynced(file, bytes);
      await psma(["scale", "data", "--size", "640MiB", "--no-wait", "--config", config], scaling);
      orphans = childrenOf(agent.pid);
      await agent.end("SIGKILL");
    }
    await using agent = startPsma(["run", "--config", config]);
    await agent.line(/data is served at/);
    deepEqual(Deno.readFileSync(file), bytes);
    await waitUntil(async () => {
      const { stdout } = await psma(["volume", "show", "data", "--json", "--config", config]);
      return JSON.parse(stdout).size_bytes === 640 * MiB;
    }, { what: () => `the scaling to go on:\n${agent.output()}`, every_ms: 200 });
    await waitUntil(() => !orphans.some(isRunning), {
      what: "the killed agent's processes to end by themselves",
    });
    const status = await agent.end();
    equal(status.code, 0, agent.output());
    equal(isMounted(temp.file("mnt")), false);
  },
});

function writeSynced(path: string, bytes: Uint8Array): void {
  using file = Deno.openSync(path, { write: true, create: true });
  for (let at = 0; at < bytes.length;) at += file.writeSync(bytes.subarray(at));
  file.syncSync();
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
