/** The agent starts before the store that has the bytes of one of its volumes. */
import { deepEqual, equal, match, ok } from "node:assert/strict";
import { parseConfig, startAgent } from "../../../src/agent/mod.ts";
import { silentLog, systemClock, systemRng } from "../../../src/core/mod.ts";
import { freePort, waitUntil } from "../../support/process.ts";
import { requires } from "../../support/requires.ts";
import { startStoreProcess } from "../../support/store_process.ts";
import { tempDir } from "../../support/temp.ts";

const MIB = 1024 ** 2;

Deno.test({
  name: "agent: a volume whose store comes late is served soon after, and goes on with its mirror",
  ...requires({ io_uring: true }),
  async fn() {
    using temp = tempDir();
    const options = {
      directories: [temp.file("far")],
      listen: `127.0.0.1:${freePort()}`,
      nbd: `127.0.0.1:${freePort()}`,
    };
    const begin = async (url: string, token_file: string) => {
      const { config, problems } = parseConfig(
        `
state_dir: ${temp.path}/state
api: { listen: "unix:${temp.path}/api.sock" }
forecast: { horizon: 1m, interval: 1h }
stores:
  near: { type: embedded, path: ${temp.path}/near }
  far: { type: psma, url: "${url}", token_file: ${token_file} }
volumes:
  here: { store: near, size: 64MiB, max_size: 256MiB, frontend: nbd }
  there: { store: far, size: 64MiB, max_size: 256MiB, frontend: nbd, mirror: { store: near } }
`,
        temp.path,
      );
      deepEqual(problems, []);
      ok(config);
      const clock = systemClock, rng = systemRng;
      return await startAgent({ config, version: "0.0.0-test", log: silentLog, clock, rng });
    };

    const server = await startStoreProcess(options);
    await using _server = server;
    const first = await begin(server.url, server.token_file);
    await waitUntil(async () => (await first.status()).ready, { what: "the first agent" });
    await first.stop();
    await server.kill();
    // What an agent leaves that was killed between the order and the first step.
    const path = temp.file("state/catalogue.json");
    const catalogue = JSON.parse(Deno.readTextFileSync(path));
    const intent = { verb: "mirror", size_bytes: 128 * MIB, operation_id: "op-1" };
    for (const entry of catalogue.volumes) if (entry.name === "there") entry.intent = intent;
    Deno.writeTextFileSync(path, JSON.stringify(catalogue));

    const agent = await begin(server.url, server.token_file);
    await using _stop = { [Symbol.asyncDispose]: () => agent.stop() };
    await waitUntil(async () => (await agent.volume("here")).state === "attached", {
      what: "the volume whose store is there",
    });
    const missed = await waitUntil(async () => {
      const view = await agent.volume("there");
      return view.state === "failed" && view;
    }, { what: "the other to be told" });
    ok(missed);
    match(missed.reason ?? "", /^Cannot /);

    const again = await startStoreProcess(options);
    await using _again = again;
    await waitUntil(async () => (await agent.volume("there")).state === "attached", {
      what: "the volume whose store is back",
    });
    await waitUntil(async () => (await agent.volume("there")).mirror, { what: "the mirror" });
    const done = await waitUntil(() => {
      const operation = agent.operation("op-1");
      return operation.state !== "running" && operation;
    }, { what: "its first sync" });
    ok(done);
    equal(done.error, null);
    equal((await agent.volume("there")).mirror?.target.size_bytes, 128 * MIB);
  },
});
