/** A volume that is reached, mirrored and switched over TLS, with the store and the agent as users start them. */
import { deepEqual, equal, match, ok } from "node:assert/strict";
import { parseConfig, type RunningAgent, startAgent } from "../../../src/agent/mod.ts";
import { silentLog, systemClock, systemRng } from "../../../src/core/mod.ts";
import { DataPlane } from "../../../src/dataplane/mod.ts";
import { type Certificates, makeCertificates } from "../../support/certificates.ts";
import { freePort, type Started, startPsma, waitUntil } from "../../support/process.ts";
import { requires } from "../../support/requires.ts";
import { type TempDir, tempDir } from "../../support/temp.ts";

const MIB = 1024 ** 2;

interface Store {
  readonly url: string;
  readonly process: Started;
}

/** The far store with TLS for its bytes, which lets in only who shows a certificate. */
async function startStore(temp: TempDir, { ca_file, server }: Certificates, ports: number[]) {
  const [http, nbd] = ports;
  const process = startPsma([
    ...["store", "serve", "--path", temp.file("far"), "--token-file", temp.file("token")],
    ...["--listen", `127.0.0.1:${http}`, "--nbd-listen", `0.0.0.0:${nbd}`],
    ...["--nbd-host", "localhost", "--tls-cert", server.cert_file, "--tls-key", server.key_file],
    ...["--tls-client-ca", ca_file],
  ]);
  try {
    const [, url = ""] = await process.line(/Ready: (\S+)/);
    return { url, process } satisfies Store;
  } catch (error) {
    await process[Symbol.asyncDispose]();
    throw error;
  }
}

async function runAgent(temp: TempDir, url: string, certificates: Certificates, ca_file: string) {
  const { server, client } = certificates;
  const { config, problems } = parseConfig(
    `
state_dir: ${temp.path}/state
api: { listen: "unix:${temp.path}/api.sock" }
sampling: { interval: 200ms }
forecast: { horizon: 1m, interval: 1h }
nbd:
  listen: 127.0.0.1:${freePort()}
  host: localhost
  tls: { cert_file: ${server.cert_file}, key_file: ${server.key_file} }
stores:
  near: { type: embedded, path: ${temp.path}/near }
  far:
    type: psma
    url: "${url}"
    token_file: ${temp.file("token")}
    ca_file: ${ca_file}
    cert_file: ${client.cert_file}
    key_file: ${client.key_file}
volumes:
  data: { store: near, size: 16MiB, max_size: 256MiB, frontend: nbd, mirror: { store: far } }
`,
    temp.path,
  );
  deepEqual(problems, []);
  ok(config);
  const [clock, rng] = [systemClock, systemRng];
  const agent = await startAgent({ config, version: "0.0.0-test", log: silentLog, clock, rng });
  await waitUntil(async () => (await agent.status()).ready, { what: "the agent" });
  return agent;
}

async function scaled(agent: RunningAgent): Promise<string | null> {
  const { id } = await agent.scale("data", { size_bytes: 32 * MIB });
  const operation = await waitUntil(() => {
    const now = agent.operation(id);
    return now.state === "running" ? undefined : now;
  }, { what: "the scaling" });
  return operation.error?.title ?? null;
}

Deno.test({
  name:
    "a volume is written, mirrored, switched and read over TLS, and its store is killed meanwhile",
  ...requires({ io_uring: true, commands: ["openssl"] }),
  async fn() {
    using temp = tempDir();
    const certificates = await makeCertificates(temp.file("pki"));
    const { ca_file } = certificates;
    const ports = [freePort(), freePort()];
    await using first = (await startStore(temp, certificates, ports)).process;
    const agent = await runAgent(temp, `http://127.0.0.1:${ports[0]}`, certificates, ca_file);
    await using _stop = { [Symbol.asyncDispose]: () => agent.stop() };

    const exports = (await agent.volume("data")).exports;
    const uris = exports.flatMap((one) => one.frontend === "nbd" ? [one.uri] : []);
    match(uris[0] ?? "", /^nbd\+unix:/);
    match(uris[1] ?? "", /^nbds:\/\/localhost:\d+\/data$/);
    const program = await DataPlane.start({ log: silentLog });
    await using _program = { [Symbol.asyncDispose]: () => program.stop() };
    const uri = uris[1] ?? "";
    const { device } = await program.command("openDevice", { uri, tls: { ca_file } });
    const bytes = crypto.getRandomValues(new Uint8Array(65536));
    await program.command("writeDevice", { device, at: 5 * MIB, bytes });

    equal(await scaled(agent), null);
    const { active, size_bytes } = await agent.volume("data");
    equal(active.uri, `nbds://localhost:${ports[1]}/${/\/([^/]*)$/.exec(active.uri)?.[1]}`);
    equal(size_bytes, 32 * MIB);
    const more = crypto.getRandomValues(new Uint8Array(65536));
    await program.command("writeDevice", { device, at: 9 * MIB, bytes: more });
    await program.command("flushDevice", { device });

    await first.end("SIGKILL");
    const read = (at: number) => program.command("readDevice", { device, at, length: 65536 });
    const reading = Promise.all([read(5 * MIB), read(9 * MIB)]);
    await waitUntil(
      () => agent.events({ after: 0, limit: 1000 }).some(({ type }) => type === "nbd.tls-failed"),
      { what: "the loss to be told" },
    );
    await using _second = (await startStore(temp, certificates, ports)).process;
    deepEqual((await reading).map((part) => new Uint8Array(part)), [bytes, more]);
  },
});

Deno.test({
  name:
    "a store whose certificate another authority signed gets no byte, and the operation says why",
  ...requires({ io_uring: true, commands: ["openssl"] }),
  async fn() {
    using temp = tempDir();
    const certificates = await makeCertificates(temp.file("pki"));
    const stranger = await makeCertificates(temp.file("stranger"));
    const { url, process } = await startStore(temp, certificates, [freePort(), freePort()]);
    await using _store = process;
    const agent = await runAgent(temp, url, certificates, stranger.ca_file);
    await using _stop = { [Symbol.asyncDispose]: () => agent.stop() };
    match(
      await scaled(agent) ?? "",
      /^Cannot reach localhost:\d+ over TLS: its certificate is not signed by .*ca-cert\.pem$/,
    );
    equal((await agent.volume("data")).active.store, "near");
  },
});
