/** The agent with a store server across the network: a raw volume's use, and what the event list says. */
import { deepEqual, match, ok } from "node:assert/strict";
import { parseConfig, probeStores, type RunningAgent, startAgent } from "../../../src/agent/mod.ts";
import { seededRng, silentLog, systemClock, systemRng } from "../../../src/core/mod.ts";
import { DataPlane } from "../../../src/dataplane/mod.ts";
import { freePort, waitUntil } from "../../support/process.ts";
import { requires } from "../../support/requires.ts";
import { startStoreProcess } from "../../support/store_process.ts";
import { type TempDir, tempDir } from "../../support/temp.ts";

const MIB = 1024 ** 2;
const WRITTEN_BYTES = 8 * MIB;

function configOf(temp: TempDir, url: string, token_file: string) {
  const { config, problems } = parseConfig(
    `
state_dir: ${temp.path}/state
api: { listen: "unix:${temp.path}/api.sock" }
sampling: { interval: 200ms }
forecast: { horizon: 1m, interval: 1h }
stores:
  near: { type: embedded, path: ${temp.path}/near }
  far: { type: psma, url: "${url}", token_file: ${token_file} }
volumes:
  data: { store: near, size: 64MiB, max_size: 256MiB, frontend: nbd, mirror: { store: far } }
`,
    temp.path,
  );
  deepEqual(problems, []);
  ok(config);
  return config;
}

/** A store server that comes back in its place. */
function storeOptions(temp: TempDir) {
  return {
    directories: [temp.file("far")],
    listen: `127.0.0.1:${freePort()}`,
    nbd: `127.0.0.1:${freePort()}`,
  };
}

Deno.test({
  name:
    "agent: a raw volume moves to a store server; its use never looks empty, each event comes once",
  ...requires({ io_uring: true }),
  async fn() {
    using temp = tempDir();
    const options = storeOptions(temp);
    await using server = await startStoreProcess(options);
    const agent = await startAgent({
      config: configOf(temp, server.url, server.token_file),
      version: "0.0.0-test",
      log: silentLog,
      clock: systemClock,
      rng: systemRng,
    });
    await using _stop = { [Symbol.asyncDispose]: () => agent.stop() };
    await waitUntil(async () => (await agent.status()).ready, { what: "the agent" });
    deepEqual((await agent.status()).unreachable_stores, []);
    const types = () =>
      agent.events({ after: 0, limit: 1000, volume: "data" }).map(({ type }) => type);

    const [exported] = (await agent.volume("data")).exports;
    ok(exported?.frontend === "nbd");
    const program = await DataPlane.start({ log: silentLog });
    await using _program = { [Symbol.asyncDispose]: () => program.stop() };
    const { device } = await program.command("openDevice", { uri: exported.uri });
    const rng = seededRng(1);
    const bytes = Uint8Array.from({ length: MIB }, () => rng.below(256));
    for (let at = 0; at < WRITTEN_BYTES; at += MIB) {
      await program.command("writeDevice", { device, at, bytes });
    }
    await program.command("flushDevice", { device });
    const used = async () => (await agent.volume("data")).used_bytes;
    await waitUntil(async () => await used() === WRITTEN_BYTES, { what: "what was written" });

    const { id } = await agent.scale("data", { size_bytes: 128 * MIB });
    const seen = new Set<number>();
    const operation = await waitUntil(async () => {
      seen.add(await used());
      const now = agent.operation(id);
      return now.state === "running" ? undefined : now;
    }, { what: "the scaling", every_ms: 5 });
    deepEqual(operation.error, null);
    // Several samples later the store's own word is in view, and nothing else ever was.
    await waitUntil(() => types().includes("cutover.measured"), { what: "the cutover's measure" });
    seen.add(await used());
    deepEqual([...seen], [WRITTEN_BYTES]);

    const expected = [
      "volume.attached",
      "mirror.requested",
      "mirror.started",
      "mirror.synced",
      "cutover.committed",
      "volume.grown",
      "cutover.measured",
    ];
    deepEqual(types().filter((type) => type !== "plan.changed"), expected);

    // The new store goes away and comes back: one word of each, however often it was tried meanwhile.
    await server.kill();
    await waitUntil(() => types().includes("nbd.lost"), { what: "the loss to be told" });
    const { not_ready, volumes } = await agent.status();
    deepEqual(not_ready, ["data: store far does not answer: requests wait until it is back"]);
    deepEqual(volumes[0]?.state, "attached");
    deepEqual(volumes[0]?.reason, "store far does not answer: requests wait until it is back");
    deepEqual(await connectedMetric(agent), 0);
    const reading = program.command("readDevice", { device, at: 0, length: 4096 });
    const again = await startStoreProcess(options);
    await using _again = again;
    await waitUntil(() => types().includes("nbd.connected"), { what: "the store's return" });
    deepEqual(await reading, bytes.subarray(0, 4096));
    deepEqual(types().filter((type) => type.startsWith("nbd.")), ["nbd.lost", "nbd.connected"]);
    deepEqual((await agent.status()).not_ready, []);
    deepEqual(await connectedMetric(agent), 1);

    // Without its store it still stops when it is told to, even while somebody waits for an answer.
    await again.kill();
    const never = program.command("readDevice", { device, at: MIB, length: 4096 }).catch(() => {});
    await waitUntil(() => types().filter((type) => type === "nbd.lost").length === 2, {
      what: "the second loss to be told",
    });
    await agent.stop();
    await program.stop();
    await never;
  },
});

async function connectedMetric(agent: RunningAgent): Promise<number | undefined> {
  const families = await agent.metrics();
  return families.find(({ name }) => name === "psma_volume_connected")?.samples[0]?.value;
}

Deno.test({
  name: "agent: a store that is away at the start is told once, and is neither fatal nor hidden",
  ...requires({ io_uring: true }),
  async fn() {
    using temp = tempDir();
    const token_file = temp.file("far.token");
    Deno.writeTextFileSync(token_file, "a-token-of-good-length-for-a-test\n", { mode: 0o600 });
    const config = configOf(temp, `http://127.0.0.1:${freePort()}`, token_file);
    const agent = await startAgent({
      config,
      version: "0.0.0-test",
      log: silentLog,
      clock: systemClock,
      rng: systemRng,
    });
    await using _stop = { [Symbol.asyncDispose]: () => agent.stop() };
    const [away] = await waitUntil(async () => {
      const { ready, unreachable_stores } = await agent.status();
      return ready && unreachable_stores.length > 0 ? unreachable_stores : undefined;
    }, { what: "the store to be missed" });
    ok(away?.name === "far");
    match(away.reason, /^Cannot reach store far.*Check that the store runs/);
    const told = agent.events({}).filter(({ type }) => type === "store.unreachable");
    deepEqual(told.map(({ severity, message }) => ({ severity, message })), [
      { severity: "warning", message: away.reason },
    ]);
    const options = { log: silentLog, clock: systemClock, rng: systemRng };
    const [finding] = await probeStores(config, options);
    deepEqual([finding?.name, finding?.level], ["store far", "warn"]);
  },
});
