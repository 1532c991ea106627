/**
 * The agent after a switch, with a store server in a process of its own: the backup grows with its volume, takes
 * it over when the store is killed, is gone back to, and is never gone back to at the cost of data by accident.
 */
import { deepEqual, equal, match, ok, rejects } from "node:assert/strict";
import { parseConfig, type RunningAgent, startAgent } from "../../../src/agent/mod.ts";
import { PsmaError, seededRng, silentLog, systemClock, systemRng } from "../../../src/core/mod.ts";
import { DataPlane } from "../../../src/dataplane/mod.ts";
import { DeviceWriter } from "../../support/device_writer.ts";
import { freePort, waitUntil } from "../../support/process.ts";
import { requires } from "../../support/requires.ts";
import { startStoreProcess, type StoreProcess } from "../../support/store_process.ts";
import { type TempDir, tempDir } from "../../support/temp.ts";

const MIB = 1024 ** 2;
const SEED = Number(Deno.env.get("PSMA_SEED") ?? systemRng.below(2 ** 32));
const needs = requires({ io_uring: true });

function configOf(temp: TempDir, server: StoreProcess, mirror: string) {
  const { config, problems } = parseConfig(
    `
state_dir: ${temp.path}/state
api: { listen: "unix:${temp.path}/api.sock" }
sampling: { interval: 200ms }
forecast: { horizon: 1m, interval: 1h }
stores:
  near: { type: embedded, path: ${temp.path}/near }
  far: { type: psma, url: "${server.url}", token_file: ${server.token_file} }
volumes:
  data:
    store: near
    size: 16MiB
    max_size: 256MiB
    frontend: nbd
    mirror: { store: far, rpo: 1s, write_through_timeout: 2s, ${mirror} }
`,
    temp.path,
  );
  deepEqual(problems, []);
  ok(config);
  return config;
}

interface Setting {
  readonly temp: TempDir;
  readonly agent: RunningAgent;
  readonly server: StoreProcess;
  readonly writer: DeviceWriter;
  /** The server again, where it was. */
  readonly startAgain: () => Promise<StoreProcess>;
}

async function setting(mirror: string, body: (one: Setting) => Promise<void>): Promise<void> {
  using temp = tempDir();
  const options = {
    directories: [temp.file("far")],
    listen: `127.0.0.1:${freePort()}`,
    nbd: `127.0.0.1:${freePort()}`,
  };
  await using server = await startStoreProcess(options);
  const agent = await startAgent({
    config: configOf(temp, server, mirror),
    version: "0.0.0-test",
    log: silentLog,
    clock: systemClock,
    rng: systemRng,
  });
  await using _stop = { [Symbol.asyncDispose]: () => agent.stop() };
  await waitUntil(async () => (await agent.status()).ready, { what: "the agent" });
  const application = await DataPlane.start({ log: silentLog });
  await using _application = { [Symbol.asyncDispose]: () => application.stop() };
  const [exported] = (await agent.volume("data")).exports;
  ok(exported?.frontend === "nbd");
  const writer = await DeviceWriter.open(application, exported.uri, seededRng(SEED));
  writer.start(8);
  const startAgain = () => startStoreProcess(options);
  await body({ temp, agent, server, writer, startAgain });
}

/** @throws its error. */
async function finished(agent: RunningAgent, { id }: { readonly id: string }): Promise<unknown> {
  const operation = await waitUntil(() => {
    const now = agent.operation(id);
    return Promise.resolve(now.state === "running" ? undefined : now);
  }, { what: `the end of ${agent.operation(id).verb}` });
  if (operation.error) {
    throw new PsmaError(operation.error.code, operation.error.title);
  }
  return operation.result;
}

async function stateOf(agent: RunningAgent): Promise<string | undefined> {
  return (await agent.volume("data")).backup?.state;
}

function told(agent: RunningAgent, type: string): boolean {
  return agent.events({ after: 0, limit: 1000 }).some((event) => event.type === type);
}

async function goesOn(writer: DeviceWriter): Promise<void> {
  const before = writer.writes;
  await waitUntil(() => writer.writes > before + 200, { what: "the application goes on" });
}

Deno.test({
  name:
    "agent: kill -9 of the new store under load; the volume goes on on its backup, without an error",
  ...needs,
  fn: () =>
    setting("backup: sync, failover_after: 500ms", async (one) => {
      const { agent, server, writer, startAgain, temp } = one;
      await goesOn(writer);
      await finished(agent, await agent.scale("data", { size_bytes: 32 * MIB }));
      const moved = await agent.volume("data");
      equal(moved.size_bytes, 32 * MIB);
      equal(moved.active.store, "far");
      equal(moved.backup?.size_bytes, 32 * MIB, "the backup has grown first");
      equal(moved.backup.mode, "sync");
      await goesOn(writer);
      await waitUntil(async () => await stateOf(agent) === "in-step", { what: "lock-step" });
      await server.kill();
      await waitUntil(() => told(agent, "backup.took-over"), { what: "the backup takes over" });
      await goesOn(writer);
      const after = await agent.volume("data");
      equal(after.active.store, "near");
      equal(after.size_bytes, 32 * MIB);
      equal(after.epoch, moved.epoch + 1);
      equal(after.backup?.store, "far");
      equal(after.backup.state, "behind");
      equal(after.reason, undefined);

      // The lost store is back: compared, then in lock-step, then gone back to, live.
      await using _again = await startAgain();
      await waitUntil(async () => await stateOf(agent) === "in-step", {
        what: "the lost store's copy is in lock-step again",
      });
      await agent.pauseMirror("data");
      await rejects(agent.rollback("data"), { code: "state/paused" });
      await agent.resumeMirror("data");
      await finished(agent, await agent.rollback("data"));
      await goesOn(writer);
      const back = await agent.volume("data");
      equal(back.active.store, "far");
      equal(back.last_cutover?.io_errors, 0);
      equal(back.last_cutover.digest_mismatches, 0);
      await finished(agent, await agent.retire("data"));
      equal((await agent.volume("data")).backup, null);
      equal([...Deno.readDirSync(temp.file("near"))].filter((at) => at.isDirectory).length, 0);
      await writer.stop();
      await writer.verifyAll();
    }),
});

Deno.test({
  name: "agent: a frozen backup is gone back to only when its loss is accepted and nobody uses it",
  ...needs,
  fn: () =>
    setting("backup: frozen", async ({ agent, writer }) => {
      await rejects(agent.rollback("data"), {
        code: "state/no-backup",
        message: "Cannot roll back data: it has no backup",
      });
      await goesOn(writer);
      await finished(agent, await agent.scale("data", { size_bytes: 32 * MIB }));
      await goesOn(writer);
      await writer.stop();
      const refused = await agent.rollback("data").catch((error) => error);
      equal(refused.code, "state/would-lose");
      match(
        refused.message,
        /^Cannot roll back data: its backup is frozen since \S+Z, .+ ago, and what was written since \(at least [\d.]+[KM]iB\) would be lost$/,
      );
      await rejects(agent.rollback("data", { discard_changes: true }), {
        code: "state/attached",
        message: "Cannot roll back data: it is attached, and would change under its users",
      });
      await writer.close();
      await agent.detach("data");
      await finished(agent, await agent.rollback("data", { discard_changes: true }));
      const back = await agent.volume("data");
      equal(back.state, "detached");
      equal(back.active.store, "near");
      equal(back.size_bytes, 16 * MIB);
      deepEqual([back.backup?.store, back.backup?.state], ["far", "frozen"]);
      const attached = await agent.attach("data");
      equal(attached.state, "attached");
    }),
});

Deno.test({
  name: "agent: a backup that cannot grow is frozen before the volume grows, and it is said why",
  ...needs,
  fn: () =>
    setting("backup: async", async ({ agent, writer, temp }) => {
      // Nothing at the near store can be changed any more.
      const [folder] = [...Deno.readDirSync(temp.file("near"))].filter((at) => at.isDirectory);
      const path = `${temp.file("near")}/${folder?.name}`;
      const record = JSON.parse(Deno.readTextFileSync(`${path}/volume.json`));
      Deno.writeTextFileSync(
        `${path}/volume.json`,
        JSON.stringify({ ...record, size_bytes: 64 * MIB }),
      );
      await finished(agent, await agent.scale("data", { size_bytes: 32 * MIB }));
      const view = await agent.volume("data");
      equal(view.size_bytes, 32 * MIB);
      equal(view.backup?.state, "frozen");
      equal(view.backup.complete, true);
      match(view.backup.reason ?? "", /^the volume grows to 32MiB, and its backup cannot: Cannot /);
      ok(told(agent, "backup.frozen"));
      await rejects(agent.rollback("data"), { code: "state/would-lose" });
      await writer.stop();
      await writer.verifyAll();
    }),
});
