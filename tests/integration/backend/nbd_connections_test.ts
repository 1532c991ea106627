/** The client on several connections: where it may have them, and what happens when some of them go. */
import assert from "node:assert/strict";
import { CuttingRelay } from "../../support/cutting_relay.ts";
import { nbdkit, uriOf } from "../../support/nbd_peers.ts";
import { type ClientOperation, NbdProcess } from "../../support/nbd_process.ts";
import { waitUntil } from "../../support/process.ts";
import { requires } from "../../support/requires.ts";
import { type TempDir, tempDir } from "../../support/temp.ts";

const MIB = 1 << 20, EIO = 5, CONNECTIONS = 4;

const writes: readonly ClientOperation[] = Array.from({ length: 48 }, (_, i) => ({
  code: "write",
  at: i * 300_000,
  length: i % 3 === 0 ? 280_000 : 4096,
  fill: i + 1,
}));
const reads: readonly ClientOperation[] = writes.map(({ at, length }) => ({
  code: "read",
  at,
  length,
}));

async function open(process: NbdProcess, uri: string, policy: "hold" | "fail", wanted: number) {
  const { client } = await process.call("open", {
    uri,
    policy,
    options: { connections: CONNECTIONS },
  });
  await untilConnected(process, client, wanted);
  return client;
}

function untilConnected(process: NbdProcess, client: number, wanted: number): Promise<unknown> {
  return waitUntil(
    async () => (await process.call("client", { client })).connections === wanted,
    { what: `${wanted} connections` },
  );
}

async function errnos(
  process: NbdProcess,
  client: number,
  operations: readonly ClientOperation[],
): Promise<number[]> {
  const { results } = await process.call("run", { client, operations });
  return results.map(({ errno }) => errno);
}

async function digests(process: NbdProcess, client: number): Promise<(string | undefined)[]> {
  const { results } = await process.call("run", { client, operations: reads });
  return results.map(({ digest }) => digest);
}

/** Connections that an nbdkit with the log filter has had writes on. */
async function writersIn(log: string): Promise<number> {
  const lines = (await Deno.readTextFile(log)).matchAll(/connection=(\d+) Write/g);
  return new Set([...lines].map(([, connection]) => connection)).size;
}

const test = (
  name: string,
  fn: (bench: { process: NbdProcess; temp: TempDir; socket: string }) => Promise<void>,
) =>
  Deno.test({
    name,
    ...requires({ commands: ["nbdkit"], io_uring: true }),
    async fn() {
      using temp = tempDir();
      await using process = await NbdProcess.start({ slots: 64 });
      await fn({ process, temp, socket: temp.file("kit.sock") });
      assert.equal((await process.call("stats", null)).operations_in_use, 0);
    },
  });

test("requests go by as many connections as asked for", async ({ process, temp, socket }) => {
  const log = temp.file("log");
  await using _server = await nbdkit(socket, ["--filter=log", "memory", "32M", `logfile=${log}`]);
  const client = await open(process, uriOf(socket), "fail", CONNECTIONS);
  assert.deepEqual(new Set(await errnos(process, client, writes)), new Set([0]));
  assert.equal(await writersIn(log), CONNECTIONS);
  const once = await digests(process, client);
  assert.equal(new Set(once).size, writes.length);
  // One flush, on any of them, is for all.
  assert.deepEqual(await errnos(process, client, [{ code: "flush", at: 0, length: 0 }]), [0]);
  await process.call("closeClient", { client });
});

test("a server that does not share its cache has one", async ({ process, temp, socket }) => {
  const log = temp.file("log");
  await using _server = await nbdkit(socket, [
    "--filter=log",
    "--filter=multi-conn",
    "memory",
    "32M",
    "multi-conn-mode=disable",
    `logfile=${log}`,
  ]);
  const client = await open(process, uriOf(socket), "fail", 1);
  assert.deepEqual(new Set(await errnos(process, client, writes)), new Set([0]));
  assert.equal(await writersIn(log), 1);
  assert.equal((await process.call("client", { client })).connections, 1);
  await process.call("closeClient", { client });
});

test("a fenced export has one: a second would cut off the first", async (bench) => {
  const { process, temp, socket } = bench;
  const path = temp.file("disk");
  await Deno.writeFile(path, new Uint8Array(16 * MIB));
  await using server = await NbdProcess.start({ slots: 64 });
  await server.call("serve", { server: "s", listen: { path: socket }, fenced: true });
  await server.call("exportFile", { server: "s", name: "data", path, description: "" });
  const client = await open(process, uriOf(socket, "data@1"), "fail", 1);
  assert.deepEqual(new Set(await errnos(process, client, writes)), new Set([0]));
  const { connections, lost } = await process.call("client", { client });
  assert.deepEqual({ connections, lost }, { connections: 1, lost: 0 });
  await process.call("closeClient", { client });
});

test("hold: a connection that is cut delays its requests, and none fails", async (bench) => {
  const { process, temp, socket } = bench;
  await using _server = await nbdkit(socket, [
    "--filter=delay",
    "memory",
    "32M",
    "wdelay=300ms",
  ]);
  await using relay = new CuttingRelay(temp.file("relay.sock"), socket);
  const client = await open(process, uriOf(relay.path), "hold", CONNECTIONS);
  for (let round = 1; round <= 3; round++) {
    const running = errnos(process, client, writes);
    // Answered in order: the requests are out when this is.
    await process.call("client", { client });
    relay.cutOldest();
    assert.deepEqual(new Set(await running), new Set([0]));
    await untilConnected(process, client, CONNECTIONS);
    assert.equal((await process.call("client", { client })).lost, round);
  }
  assert.equal(new Set(await digests(process, client)).size, writes.length);
  assert.deepEqual(new Set(process.events.map(({ type }) => type)), new Set(["nbd.fewer"]));
  await process.call("closeClient", { client });
});

test("fail: only what the connection carried fails", async ({ process, temp, socket }) => {
  await using _server = await nbdkit(socket, [
    "--filter=delay",
    "memory",
    "32M",
    "wdelay=300ms",
  ]);
  await using relay = new CuttingRelay(temp.file("relay.sock"), socket);
  const client = await open(process, uriOf(relay.path), "fail", CONNECTIONS);
  const running = errnos(process, client, writes);
  await process.call("client", { client });
  relay.cutOldest();
  const ended = await running;
  assert.deepEqual(new Set(ended), new Set([0, EIO]));
  const failed = ended.filter((errno) => errno === EIO).length;
  assert.equal(failed, writes.length / CONNECTIONS, "each carried its share");
  await untilConnected(process, client, CONNECTIONS);
  assert.deepEqual(new Set(await errnos(process, client, writes)), new Set([0]));
  await process.call("closeClient", { client });
});

test("hold: a killed server is lost on all of them, and comes back", async (bench) => {
  const { process, temp, socket } = bench;
  await Deno.writeFile(temp.file("disk"), new Uint8Array(32 * MIB));
  const args = ["--filter=delay", "file", temp.file("disk"), "wdelay=200ms"];
  const first = await nbdkit(socket, args);
  const client = await open(process, uriOf(socket), "hold", CONNECTIONS);
  const running = errnos(process, client, writes);
  await process.call("client", { client });
  await first.end("SIGKILL");
  await untilConnected(process, client, 0);
  await using _second = await nbdkit(socket, args);
  assert.deepEqual(new Set(await running), new Set([0]));
  await untilConnected(process, client, CONNECTIONS);
  assert.equal(new Set(await digests(process, client)).size, writes.length);
  const told = process.events.map(({ type }) => type).filter((type) => type !== "nbd.fewer");
  assert.deepEqual(told, ["nbd.lost", "nbd.connected"]);
  await process.call("closeClient", { client });
});

test("an export that grew is taken over on all of them", async ({ process, temp, socket }) => {
  await Deno.writeFile(temp.file("disk"), new Uint8Array(16 * MIB));
  await using _server = await nbdkit(socket, ["file", temp.file("disk")]);
  const client = await open(process, uriOf(socket), "hold", CONNECTIONS);
  await Deno.truncate(temp.file("disk"), 32 * MIB);
  const running = errnos(process, client, writes);
  await process.call("grow", { client, size_bytes: 32 * MIB });
  assert.deepEqual(new Set(await running), new Set([0]));
  await untilConnected(process, client, CONNECTIONS);
  const last: ClientOperation = { code: "write", at: 31 * MIB, length: MIB, fill: 7 };
  assert.deepEqual(await errnos(process, client, Array(8).fill(last)), Array(8).fill(0));
  await process.call("closeClient", { client });
});
