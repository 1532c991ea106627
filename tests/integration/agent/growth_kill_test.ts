/**
 * The agent, killed exactly between a switch's commit and the volume's growth: the store of the backup, which
 * grows first, does not answer that call before the agent is dead. The next agent must complete the growth.
 */
import { deepEqual, equal } from "node:assert/strict";
import { seededRng, silentLog } from "../../../src/core/mod.ts";
import { DataPlane } from "../../../src/dataplane/mod.ts";
import { freePort, psma, startPsma, waitUntil } from "../../support/process.ts";
import { requires } from "../../support/requires.ts";
import { startStoreProcess } from "../../support/store_process.ts";
import { type TempDir, tempDir } from "../../support/temp.ts";

const MIB = 1024 ** 2;
const TYPED = ["content-type", "authorization", "idempotency-key"];

/** A store's management, of which changes of a volume's size wait at a gate. */
class Gate implements AsyncDisposable {
  readonly #server: Deno.HttpServer<Deno.NetAddr>;
  readonly #opened = Promise.withResolvers<void>();
  waiting = 0;

  constructor(readonly url: string) {
    const options = { hostname: "127.0.0.1", port: 0, onListen: () => {} };
    this.#server = Deno.serve(options, (request) => this.#pass(request));
  }

  get ownUrl(): string {
    return `http://127.0.0.1:${this.#server.addr.port}`;
  }

  async #pass(request: Request): Promise<Response> {
    const { pathname, search } = new URL(request.url), { method } = request;
    const headers = TYPED.flatMap((name) => {
      const value = request.headers.get(name);
      return value === null ? [] : [[name, value] as [string, string]];
    });
    const body = method === "GET" || method === "DELETE" ? null : await request.bytes();
    if (method === "PATCH") {
      this.waiting++;
      await this.#opened.promise;
    }
    const answer = await fetch(new URL(pathname + search, this.url), { method, headers, body });
    const type = answer.headers.get("content-type") ?? "application/json";
    const { status } = answer, bytes = await answer.bytes();
    return new Response(status === 204 ? null : bytes, {
      status,
      headers: { "content-type": type },
    });
  }

  open(): void {
    this.#opened.resolve();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.open();
    await this.#server.shutdown();
  }
}

function configText(temp: TempDir, url: string, token_file: string): string {
  return `
state_dir: ${temp.path}/state
api: { listen: "unix:${temp.path}/api.sock" }
sampling: { interval: 200ms }
forecast: { horizon: 1m, interval: 1h }
stores:
  near: { type: psma, url: "${url}", token_file: ${token_file} }
  far: { type: embedded, path: ${temp.path}/far }
volumes:
  data:
    store: near
    size: 16MiB
    max_size: 256MiB
    frontend: nbd
    mirror: { store: far, rpo: 1s, backup: sync }
`;
}

Deno.test({
  name: "agent: killed between the commit and the growth, the next one grows backup and volume",
  ...requires({ io_uring: true }),
  async fn() {
    using temp = tempDir();
    await using server = await startStoreProcess({
      directories: [temp.file("near")],
      listen: `127.0.0.1:${freePort()}`,
      nbd: `127.0.0.1:${freePort()}`,
    });
    await using gate = new Gate(server.url);
    const config = temp.file("psma.yaml");
    Deno.writeTextFileSync(config, configText(temp, gate.ownUrl, server.token_file));
    const show = async () => {
      const { stdout } = await psma(["volume", "show", "data", "--json", "--config", config]);
      return JSON.parse(stdout);
    };
    const bytes = Uint8Array.from({ length: MIB }, byteOf(1));
    const program = await DataPlane.start({ log: silentLog });
    await using _program = { [Symbol.asyncDispose]: () => program.stop() };
    {
      await using agent = startPsma(["run", "--config", config]);
      await agent.line(/data is served at/);
      const { device } = await program.command("openDevice", {
        uri: (await show()).exports[0].uri,
      });
      await program.command("writeDevice", { device, at: 15 * MIB, bytes });
      await program.command("flushDevice", { device });
      await program.command("closeDevice", { device });
      await psma(["scale", "data", "--size", "32MiB", "--no-wait", "--config", config]);
      await waitUntil(() => gate.waiting > 0, { what: () => `the growth:\n${agent.output()}` });
      const { size_bytes, last_cutover, backup } = await show();
      deepEqual([size_bytes, backup.size_bytes], [16 * MIB, 16 * MIB]);
      equal(last_cutover.size_after_bytes, 32 * MIB);
      await agent.end("SIGKILL");
    }
    gate.open();
    await using agent = startPsma(["run", "--config", config]);
    await agent.line(/data is served at/);
    const grown = await waitUntil(async () => {
      const now = await show();
      return now.size_bytes === 32 * MIB ? now : undefined;
    }, { what: () => `the growth to go on:\n${agent.output()}`, every_ms: 200 });
    deepEqual([grown.backup.size_bytes, grown.backup.mode], [32 * MIB, "sync"]);
    const { device } = await program.command("openDevice", { uri: grown.exports[0].uri });
    deepEqual(await program.command("readDevice", { device, at: 15 * MIB, length: MIB }), bytes);
    await program.command("writeDevice", { device, at: 31 * MIB, bytes });
    await program.command("closeDevice", { device });
  },
});

/** Bytes by their place, the same for the same seed. */
function byteOf(seed: number): () => number {
  const rng = seededRng(seed);
  return () => rng.below(256);
}
