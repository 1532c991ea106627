/** The agent in this process, with embedded stores and the NBD frontend: the whole life of a volume. */
import { deepEqual, equal, match, ok, rejects } from "node:assert/strict";
import { parseConfig, type RunningAgent, startAgent } from "../../../src/agent/mod.ts";
import { seededRng, silentLog, systemClock, systemRng } from "../../../src/core/mod.ts";
import { DataPlane, frontendFault } from "../../../src/dataplane/mod.ts";
import { waitUntil } from "../../support/process.ts";
import { requires } from "../../support/requires.ts";
import { type TempDir, tempDir } from "../../support/temp.ts";

const MiB = 1024 ** 2;

function configOf(temp: TempDir, more = "") {
  const { config, problems } = parseConfig(
    `
state_dir: ${temp.path}/state
api: { listen: "unix:${temp.path}/api.sock" }
sampling: { interval: 200ms }
forecast: { horizon: 1m, interval: 1h }
stores:
  near: { type: embedded, path: ${temp.path}/near }
  far: { type: embedded, path: ${temp.path}/far }
${more}`,
    temp.path,
  );
  deepEqual(problems, []);
  ok(config);
  return config;
}

const CONFIGURED = `volumes:
  data: { size: 64MiB, max_size: 256MiB, frontend: nbd }
`;

function start(temp: TempDir, more = CONFIGURED): Promise<RunningAgent> {
  return startAgent({
    config: configOf(temp, more),
    version: "0.0.0-test",
    log: silentLog,
    clock: systemClock,
    rng: systemRng,
  });
}

async function ready(agent: RunningAgent): Promise<void> {
  let reasons: readonly string[] = [];
  await waitUntil(async () => {
    const { ready, not_ready } = await agent.status();
    reasons = not_ready;
    return ready ? true : undefined;
  }, { what: `the agent to be ready: ${reasons.join("; ")}` });
}

/** Waits for an operation's end. @throws its error. */
async function finished(agent: RunningAgent, id: string) {
  const operation = await waitUntil(() => {
    const operation = agent.operation(id);
    return Promise.resolve(operation.state === "running" ? undefined : operation);
  }, { what: `the end of ${agent.operation(id).verb}` });
  if (operation.state === "done") return operation;
  throw new Error(`${operation.error?.code}: ${operation.error?.title}`);
}

/** A program of its own: an NBD client with a data plane of its own. */
async function client(uri: string) {
  const plane = await DataPlane.start({ log: silentLog });
  const { device, size_bytes } = await plane.command("openDevice", { uri });
  return {
    size_bytes,
    write: (at: number, bytes: Uint8Array) => plane.command("writeDevice", { device, at, bytes }),
    read: (at: number, length: number) => plane.command("readDevice", { device, at, length }),
    flush: () => plane.command("flushDevice", { device }),
    [Symbol.asyncDispose]: () => plane.stop(),
  };
}

function pattern(seed: number, length: number): Uint8Array {
  const rng = seededRng(seed);
  return Uint8Array.from({ length }, () => rng.below(256));
}

async function uriOf(agent: RunningAgent, name = "data"): Promise<string> {
  const [exported] = (await agent.volume(name)).exports;
  ok(exported?.frontend === "nbd");
  return exported.uri;
}

const needs = requires({ io_uring: true });

Deno.test({
  name: "agent: a volume is served, filled, scaled under its reader, and there after a restart",
  ...needs,
  async fn() {
    using temp = tempDir();
    const written = [0, 7 * MiB, 63 * MiB].map((at, seed) => ({ at, bytes: pattern(seed, 65536) }));
    const grown = { at: 100 * MiB, bytes: pattern(9, 65536) };
    {
      const agent = await start(temp);
      await using _stop = { [Symbol.asyncDispose]: () => agent.stop() };
      await ready(agent);
      const before = await agent.volume("data");
      equal(before.size_bytes, 64 * MiB);
      equal(before.active.store, "near");
      equal(before.used_source, "allocated");
      await using program = await client(await uriOf(agent));
      for (const { at, bytes } of written) await program.write(at, bytes);
      await program.flush();

      await rejects(agent.scale("data", { size_bytes: 32 * MiB }), { code: "usage/size" });
      await rejects(agent.scale("data", { size_bytes: 512 * MiB }), { code: "usage/size" });
      await rejects(agent.switchVolume("data"), { code: "state/no-mirror" });
      const operation = await agent.scale("data", { size_bytes: 128 * MiB });
      equal(operation.state, "running");
      await rejects(agent.scale("data", { size_bytes: 128 * MiB }), { code: "state/busy" });
      const { result } = await finished(agent, operation.id);
      equal((result as { size_after_bytes: number }).size_after_bytes, 128 * MiB);

      const after = await agent.volume("data");
      equal(after.size_bytes, 128 * MiB);
      equal(after.epoch, before.epoch + 1);
      equal(after.active.store, "far");
      equal(after.backup?.store, "near");
      equal(after.mirror, null);
      equal(after.last_cutover?.io_errors, 0);
      for (const { at, bytes } of written) deepEqual(await program.read(at, 65536), bytes);
    }
    {
      const agent = await start(temp);
      await using _stop = { [Symbol.asyncDispose]: () => agent.stop() };
      await ready(agent);
      const view = await agent.volume("data");
      equal(view.size_bytes, 128 * MiB);
      equal(view.active.store, "far");
      await using program = await client(await uriOf(agent));
      equal(program.size_bytes, 128 * MiB);
      for (const { at, bytes } of written) deepEqual(await program.read(at, 65536), bytes);
      await program.write(grown.at, grown.bytes);
      deepEqual(await program.read(grown.at, 65536), grown.bytes);

      const { id } = await agent.retire("data");
      await finished(agent, id);
      equal((await agent.volume("data")).backup, null);
      deepEqual(volumesIn(temp, "near"), []);
      const ids = agent.events({ after: 0, limit: 1000 }).map((one) => one.id);
      deepEqual(ids, ids.map((_, index) => index + 1));
    }
  },
});

Deno.test({
  name: "agent: a second switch says that it deletes the older backup; there is one at a time",
  ...needs,
  async fn() {
    using temp = tempDir();
    const agent = await start(temp);
    await using _stop = { [Symbol.asyncDispose]: () => agent.stop() };
    await ready(agent);
    const scale = async (size_bytes: number) => {
      const { id } = await agent.scale("data", { size_bytes });
      const { result } = await finished(agent, id);
      return (result as { replaced_backup: unknown }).replaced_backup;
    };
    equal(await scale(96 * MiB), null);
    // Until the first cutover is measured, the mirror it came from is not all gone.
    await waitUntil(() => agent.events({}).some(({ type }) => type === "cutover.measured"), {
      what: "the first cutover's measure",
    });
    deepEqual(await scale(128 * MiB), { store: "near", size_bytes: 64 * MiB });
    const told = agent.events({}).filter(({ type }) => type === "backup.replaced");
    deepEqual(told.map(({ message }) => message), [
      "The older backup of data at near (64MiB) is deleted: the former source is the backup now",
    ]);
    const { backup } = await agent.volume("data");
    deepEqual([backup?.store, backup?.size_bytes, backup?.state], ["far", 96 * MiB, "frozen"]);
    deepEqual(volumesIn(temp, "near"), []);
  },
});

Deno.test({
  name: "agent: without its state directory it takes nobody's bytes, and advises to delete nothing",
  ...needs,
  async fn() {
    using temp = tempDir();
    {
      const agent = await start(temp);
      await using _stop = { [Symbol.asyncDispose]: () => agent.stop() };
      await ready(agent);
    }
    Deno.removeSync(temp.file("state"), { recursive: true });
    const agent = await start(temp);
    await using _stop = { [Symbol.asyncDispose]: () => agent.stop() };
    const event = await waitUntil(
      () => agent.events({}).find(({ type }) => type === "volume.failed"),
      { what: "the failure" },
    );
    equal(event.data["code"], "state/unknown-bytes");
    match(event.message, /store near holds bytes.*do not delete them. Restore the state directory/);
    equal(volumesIn(temp, "near").length, 1);
  },
});

Deno.test({
  name: "agent: a scaling event that was cut off goes on at the next start",
  ...needs,
  async fn() {
    using temp = tempDir();
    let id: string;
    {
      const agent = await start(temp);
      await using _stop = { [Symbol.asyncDispose]: () => agent.stop() };
      await ready(agent);
      await using program = await client(await uriOf(agent));
      await program.write(0, pattern(1, MiB));
      ({ id } = await agent.scale("data", { size_bytes: 96 * MiB }));
    }
    const agent = await start(temp);
    await using _stop = { [Symbol.asyncDispose]: () => agent.stop() };
    await ready(agent);
    const operation = await finished(agent, id);
    equal(operation.verb, "scale");
    const view = await agent.volume("data");
    equal(view.size_bytes, 96 * MiB);
    equal(volumesIn(temp, "far").length, 1);
    await using program = await client(await uriOf(agent));
    deepEqual(await program.read(0, MiB), pattern(1, MiB));
  },
});

Deno.test({
  name: "agent: a volume that passes its threshold is scaled by itself, once",
  ...needs,
  async fn() {
    using temp = tempDir();
    const agent = await start(temp);
    await using _stop = { [Symbol.asyncDispose]: () => agent.stop() };
    await ready(agent);
    await using program = await client(await uriOf(agent));
    for (let at = 0; at < 56 * MiB; at += MiB) await program.write(at, pattern(at, MiB));
    await program.flush();
    const view = await waitUntil(async () => {
      const view = await agent.volume("data");
      return view.size_bytes > 64 * MiB ? view : undefined;
    }, { what: () => `the scaling: ${JSON.stringify(agent.events({}).at(-1))}` });
    equal(view.size_bytes, 80 * MiB);
    const scale = agent.events({ after: 0 }).find(({ type }) => type === "threshold.reached");
    match(scale?.message ?? "", /scale\. .* are used: at or above the threshold of 80%/);
    deepEqual(await program.read(55 * MiB, MiB), pattern(55 * MiB, MiB));
    await waitUntil(async () => (await agent.volume("data")).used_bytes >= 56 * MiB, {
      what: "what the new place has allocated",
    });
  },
});

Deno.test({
  name: "agent: a mirror can be started, paused, cancelled and started again; its targets go",
  ...needs,
  async fn() {
    using temp = tempDir();
    const agent = await start(temp);
    await using _stop = { [Symbol.asyncDispose]: () => agent.stop() };
    await ready(agent);
    await rejects(agent.cancelMirror("data"), { code: "state/no-mirror" });
    const first = await agent.startMirror("data", { size_bytes: 80 * MiB });
    await finished(agent, first.id);
    await rejects(agent.startMirror("data", {}), { code: "state/mirror" });
    equal((await agent.pauseMirror("data")).state, "paused");
    ok((await agent.resumeMirror("data")).state !== "paused");
    await agent.cancelMirror("data");
    equal(await agent.mirror("data"), null);
    deepEqual(volumesIn(temp, "far"), []);

    const second = await agent.startMirror("data", {});
    await finished(agent, second.id);
    equal((await agent.mirror("data"))?.target.size_bytes, 80 * MiB);
    const { id } = await agent.switchVolume("data");
    await finished(agent, id);
    equal((await agent.volume("data")).size_bytes, 80 * MiB);
  },
});

Deno.test({
  name: "agent: a volume whose frontend cannot serve here is refused, and nothing is made",
  ...needs,
  async fn() {
    using temp = tempDir();
    const agent = await start(temp, "");
    await using _stop = { [Symbol.asyncDispose]: () => agent.stop() };
    for (const frontend of ["ublk", "fuse"] as const) {
      const fault = frontendFault({ frontend, device: false, filesystem: null });
      if (fault === undefined) continue;
      const order = { name: frontend, size_bytes: MiB, frontend };
      await rejects(agent.createVolume(order), ({ code, message, hint }) => {
        equal(code, fault.code);
        equal(message, `Cannot create ${frontend}: ${fault.why}`);
        return hint.includes(fault.advice);
      });
      await rejects(agent.volume(frontend), { code: "not-found/volume" });
    }
    deepEqual((await agent.status()).volumes, []);
    const named = () => namesBelow(temp.path).filter((path) => /\/(ublk|fuse)\b/.test(path));
    deepEqual(named(), []);
    // The name is free.
    const made = await agent.createVolume({ name: "ublk", size_bytes: MiB, frontend: "nbd" });
    equal(made.state, "attached");
    ok(named().length > 0);
  },
});

/** Files and folders below a folder, as paths. */
function namesBelow(folder: string): string[] {
  return [...Deno.readDirSync(folder)].flatMap(({ name, isDirectory }) => {
    const path = `${folder}/${name}`;
    return isDirectory ? [path, ...namesBelow(path)] : [path];
  });
}

Deno.test({
  name: "agent: volumes are made by hand, detached, attached and deleted, and stay over a restart",
  ...needs,
  async fn() {
    using temp = tempDir();
    {
      const agent = await start(temp, "");
      await using _stop = { [Symbol.asyncDispose]: () => agent.stop() };
      const made = await agent.createVolume({ name: "a", size_bytes: 16 * MiB, frontend: "nbd" });
      equal(made.state, "attached");
      await rejects(agent.createVolume({ name: "a", size_bytes: MiB }), { code: "state/exists" });
      await rejects(agent.createVolume({ name: "b", size_bytes: 3 }), { code: "usage/size" });
      await rejects(agent.createVolume({ name: "B", size_bytes: MiB }), { code: "usage/name" });
      await rejects(agent.createVolume({ name: "b", size_bytes: MiB, store: "x" }), {
        code: "config/reference",
      });
      await rejects(agent.volume("b"), { code: "not-found/volume" });
      await rejects(agent.deleteVolume("a"), { code: "state/attached" });
      equal((await agent.detach("a")).state, "detached");
    }
    const agent = await start(temp, "");
    await using _stop = { [Symbol.asyncDispose]: () => agent.stop() };
    await ready(agent);
    equal((await agent.volume("a")).state, "detached");
    equal((await agent.attach("a")).state, "attached");
    await agent.detach("a");
    await agent.deleteVolume("a");
    deepEqual((await agent.status()).volumes, []);
    deepEqual(volumesIn(temp, "near"), []);
  },
});

Deno.test({
  name: "agent: a volume with a connected client is detached only by force",
  ...needs,
  async fn() {
    using temp = tempDir();
    const agent = await start(temp);
    await using _stop = { [Symbol.asyncDispose]: () => agent.stop() };
    await ready(agent);
    const program = await client(await uriOf(agent));
    await using _program = program;
    const bytes = pattern(1, 4096);
    await program.write(0, bytes);
    await rejects(agent.detach("data"), {
      code: "state/busy",
      message: /^Cannot detach data: a client is connected to nbd\+unix:/,
      hint: /--force/,
    });
    equal((await agent.volume("data")).state, "attached");
    deepEqual(await program.read(0, 4096), bytes);
    const { state, exports } = await agent.detach("data", { force: true });
    deepEqual([state, exports], ["detached", []]);
  },
});

Deno.test({
  name: "agent: plan, history and metrics speak of a served volume",
  ...needs,
  async fn() {
    using temp = tempDir();
    const agent = await start(temp);
    await using _stop = { [Symbol.asyncDispose]: () => agent.stop() };
    await ready(agent);
    const plan = await agent.plan("data");
    equal(plan.action, "none");
    equal(plan.numbers["size_bytes"], 64 * MiB);
    const families = await agent.metrics();
    const size = families.find(({ name }) => name === "psma_volume_size_bytes");
    deepEqual(size?.samples, [{ labels: { volume: "data" }, value: 64 * MiB }]);
    for (const { name } of families) match(name, /^psma_[a-z0-9_]+$/);
    const query = { from_ms: 0, to_ms: systemClock.nowMs(), step_ms: 1000 };
    await rejects(agent.history("data", { metric: "nonsense", ...query }), {
      code: "usage/metric",
    });
    const points = await agent.history("data", { metric: "used_bytes", ...query });
    ok(points.length > 0);
  },
});

Deno.test({
  name: "agent: one agent a state directory",
  ...needs,
  async fn() {
    using temp = tempDir();
    const agent = await start(temp);
    await using _stop = { [Symbol.asyncDispose]: () => agent.stop() };
    await rejects(start(temp), { code: "state/locked" });
    await ready(agent);
    equal((Deno.statSync(`${temp.path}/state`).mode ?? 0) & 0o777, 0o700);
  },
});

/** Volumes that a store has on its disk. */
function volumesIn(temp: TempDir, store: string): string[] {
  return [...Deno.readDirSync(temp.file(store))].filter(({ isDirectory }) => isDirectory)
    .map(({ name }) => name);
}
