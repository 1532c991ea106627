/** The client against nbdkit: everything it can do, and what happens when the server goes away. */
import assert from "node:assert/strict";
import { type ClientOperation, NbdProcess } from "../../support/nbd_process.ts";
import { nbdkit, uriOf } from "../../support/nbd_peers.ts";
import { waitUntil } from "../../support/process.ts";
import { requires } from "../../support/requires.ts";
import { tempDir } from "../../support/temp.ts";

const MIB = 1 << 20, EIO = 5, EINVAL = 22;

async function run(
  process: NbdProcess,
  client: number,
  operations: readonly ClientOperation[],
): Promise<readonly { errno: number; digest?: string }[]> {
  return (await process.call("run", { client, operations })).results;
}

const write = (at: number, length: number, fill: number): ClientOperation => ({
  code: "write",
  at,
  length,
  fill,
});
const read = (at: number, length: number): ClientOperation => ({ code: "read", at, length });
const errnos = (results: readonly { errno: number }[]) => results.map((result) => result.errno);

/** Digest of `length` times one byte, as the process computes it. */
function digestOf(fill: number, length: number): string {
  let hash = 0x811c9dc5;
  for (let i = 0; i < length; i++) hash = Math.imul(hash ^ fill, 0x01000193);
  return (hash >>> 0).toString(16);
}

interface Bench {
  readonly process: NbdProcess;
  readonly socket: string;
  file(name: string): string;
}

const test = (name: string, fn: (bench: Bench) => Promise<void>) =>
  Deno.test({
    name,
    ...requires({ commands: ["nbdkit"], io_uring: true }),
    async fn() {
      using temp = tempDir();
      await using process = await NbdProcess.start({ slots: 64, maxIo: 4 * MIB });
      await fn({ process, socket: temp.file("kit.sock"), file: (name) => temp.file(name) });
      const stats = await process.call("stats", null);
      assert.equal(stats.operations_in_use, 0);
    },
  });

test("reads what it wrote, small and large, many at once", async ({ process, socket }) => {
  await using _server = await nbdkit(socket, ["memory", "64M"]);
  const { client, size_bytes } = await process.call("open", {
    uri: uriOf(socket),
    policy: "fail",
  });
  assert.equal(size_bytes, 64 * MIB);
  const lengths = [512, 4096, 1000, 65_536, 200_001, MIB, 4 * MIB];
  const places = lengths.flatMap((length, i) =>
    Array.from({ length: 6 }, (_, j) => ({ at: (i * 6 + j) * MIB + j, length, fill: i * 6 + j }))
  ).filter((place) => place.at + place.length < 64 * MIB && place.length <= MIB);
  const writes = places.map((place) =>
    write(place.at, Math.min(place.length, MIB - 8), place.fill)
  );
  assert.deepEqual(new Set(errnos(await run(process, client, writes))), new Set([0]));
  const reads = await run(process, client, writes.map((one) => read(one.at, one.length)));
  reads.forEach((result, i) => {
    const { fill = 0, length = 0 } = writes[i] ?? {};
    assert.equal(result.digest, digestOf(fill, length), `operation ${i}`);
  });
  const rest = await run(process, client, [
    { code: "flush", at: 0, length: 0 },
    { ...write(0, 4096, 3), fua: true },
    read(64 * MIB, 512),
  ]);
  assert.deepEqual(errnos(rest), [0, 0, EINVAL]);
  await process.call("closeClient", { client });
});

test("splits what is larger than the server takes", async ({ process, socket }) => {
  await using _server = await nbdkit(socket, [
    "--filter=blocksize-policy",
    "memory",
    "16M",
    "blocksize-maximum=64K",
    "blocksize-preferred=4K",
    "blocksize-error-policy=error",
  ]);
  const { client } = await process.call("open", { uri: uriOf(socket), policy: "fail" });
  assert.deepEqual(errnos(await run(process, client, [write(512, 3 * MIB, 9)])), [0]);
  const [whole] = await run(process, client, [read(512, 3 * MIB)]);
  assert.equal(whole?.digest, digestOf(9, 3 * MIB));
  await process.call("closeClient", { client });
});

test("emulates what the server lacks", async ({ process, socket, file }) => {
  await using _server = await nbdkit(socket, [
    "--filter=log",
    "--filter=nozero",
    "--filter=fua",
    "memory",
    "16M",
    `logfile=${file("log")}`,
  ]);
  const { client } = await process.call("open", { uri: uriOf(socket), policy: "fail" });
  await run(process, client, [write(0, 4 * MIB, 1)]);
  const asked = async (what: string) =>
    (await Deno.readTextFile(file("log"))).split(what).length - 1;
  assert.equal(await asked(" Flush "), 0);
  const results = await run(process, client, [
    { code: "writeZeroes", at: 512, length: 3 * MIB, fua: true },
    { code: "trim", at: 3 * MIB + 512, length: 1024 },
  ]);
  assert.deepEqual(errnos(results), [0, 0]);
  assert.equal(await asked(" Flush "), 1, "FUA is a flush afterwards");
  assert.equal(await asked(" Zero "), 0);
  assert.equal(await asked(" Trim "), 0, "a trim must read as zeros, which NBD's does not promise");
  const [zeros, ones] = await run(process, client, [
    read(512, 3 * MIB + 1024),
    read(3 * MIB + 1536, 4096),
  ]);
  assert.equal(zeros?.digest, digestOf(0, 3 * MIB + 1024));
  assert.equal(ones?.digest, digestOf(1, 4096));
  await process.call("closeClient", { client });
});

test("passes the server's errors on", async ({ process, socket, file }) => {
  const trigger = file("trigger");
  await using _server = await nbdkit(socket, [
    "--filter=error",
    "memory",
    "1M",
    "error=ENOSPC",
    "error-rate=100%",
    `error-file=${trigger}`,
  ]);
  const { client } = await process.call("open", { uri: uriOf(socket), policy: "hold" });
  await Deno.writeTextFile(trigger, "");
  assert.deepEqual(errnos(await run(process, client, [write(0, 512, 1), read(0, 512)])), [28, 28]);
  await Deno.remove(trigger);
  assert.deepEqual(errnos(await run(process, client, [write(0, 512, 1), read(0, 512)])), [0, 0]);
  await process.call("closeClient", { client });
});

test("hold: a killed server delays operations and none fails", async (bench) => {
  const { process, socket, file } = bench;
  await Deno.writeFile(file("disk"), new Uint8Array());
  await Deno.truncate(file("disk"), 32 * MIB);
  const args = ["--filter=delay", "file", file("disk"), "wdelay=200ms", "rdelay=200ms"];
  const first = await nbdkit(socket, args);
  const { client } = await process.call("open", { uri: uriOf(socket), policy: "hold" });
  const writes = Array.from({ length: 40 }, (_, i) => write(i * 300_000, 300_000 - (i % 3), i));
  const running = run(process, client, writes);
  // The first ones are in the server's hands, the last ones in its socket.
  await process.call("client", { client });
  await first.end("SIGKILL");
  await waitUntil(async () => !(await process.call("client", { client })).connected, {
    what: "the client to notice",
  });
  const late = run(process, client, [read(31 * MIB, 4096)]);
  await using _second = await nbdkit(socket, args);
  assert.deepEqual(new Set(errnos(await running)), new Set([0]));
  assert.deepEqual(errnos(await late), [0]);
  const reads = await run(process, client, writes.map((one) => read(one.at, one.length)));
  reads.forEach((result, i) => {
    assert.equal(result.digest, digestOf(i, writes[i]?.length ?? 0), `operation ${i}`);
  });
  assert.equal((await process.call("client", { client })).lost, 1);
  assert.deepEqual(process.events.map((event) => event.type), ["nbd.lost", "nbd.connected"]);
  await process.call("closeClient", { client });
});

test("fail: a killed server fails what is in flight, then it reconnects", async (bench) => {
  const { process, socket } = bench;
  const args = ["--filter=delay", "memory", "8M", "wdelay=30"];
  const first = await nbdkit(socket, args);
  const { client } = await process.call("open", { uri: uriOf(socket), policy: "fail" });
  const running = run(process, client, [write(0, 4096, 1), write(0, 4 * MIB, 1)]);
  await first.end("SIGKILL");
  assert.deepEqual(errnos(await running), [EIO, EIO]);
  assert.deepEqual(errnos(await run(process, client, [read(0, 512)])), [EIO]);
  await using _second = await nbdkit(socket, ["memory", "8M"]);
  await waitUntil(async () => (await process.call("client", { client })).connected, {
    what: "a reconnect",
  });
  assert.deepEqual(errnos(await run(process, client, [write(0, 512, 1), read(0, 512)])), [0, 0]);
  await process.call("closeClient", { client });
});

test("fail: abort() fails what is in flight at once, though the server lives", async (bench) => {
  const { process, socket } = bench;
  await using _server = await nbdkit(socket, ["--filter=delay", "memory", "8M", "rdelay=30"]);
  const { client } = await process.call("open", { uri: uriOf(socket), policy: "fail" });
  const running = run(process, client, [read(0, 4096), read(0, 4 * MIB)]);
  await process.call("abort", { client });
  assert.deepEqual(errnos(await running), [EIO, EIO]);
  await waitUntil(async () => (await process.call("client", { client })).connected, {
    what: "a reconnect",
  });
  assert.deepEqual(errnos(await run(process, client, [write(0, 512, 1)])), [0]);
  assert.equal((await process.call("client", { client })).lost, 1);
  await process.call("closeClient", { client });
});

test("what is held fails when the policy becomes fail", async ({ process, socket }) => {
  const server = await nbdkit(socket, ["memory", "1M"]);
  const { client } = await process.call("open", { uri: uriOf(socket), policy: "hold" });
  await server.end("SIGKILL");
  await waitUntil(async () => !(await process.call("client", { client })).connected, {
    what: "the client to notice",
  });
  const running = run(process, client, [read(0, 512), { code: "flush", at: 0, length: 0 }]);
  await process.call("setPolicy", { client, policy: "fail" });
  assert.deepEqual(errnos(await running), [EIO, EIO]);
  await process.call("closeClient", { client });
});

test("grow() takes over what the server has grown to, and says so when it has not", async (bench) => {
  const { process, socket, file } = bench;
  await Deno.writeFile(file("disk"), new Uint8Array(4 * MIB));
  await using _server = await nbdkit(socket, ["file", file("disk")]);
  const { client } = await process.call("open", { uri: uriOf(socket), policy: "fail" });
  await assert.rejects(process.call("grow", { client, size_bytes: 8 * MIB }), {
    code: "state/cannot-grow",
  });
  await Deno.truncate(file("disk"), 8 * MIB);
  const writes = Array.from({ length: 30 }, (_, i) => write(i * 65_536, 65_536, i));
  const running = run(process, client, writes);
  await process.call("grow", { client, size_bytes: 8 * MIB });
  assert.deepEqual(new Set(errnos(await running)), new Set([0]));
  const state = await process.call("client", { client });
  assert.deepEqual(state, { connected: true, connections: 1, lost: 0, size_bytes: 8 * MIB });
  assert.deepEqual(errnos(await run(process, client, [write(7 * MIB, MIB, 5)])), [0]);
  await process.call("closeClient", { client });
});

test("openNbdBackend() says what is wrong", async ({ process, socket }) => {
  const open = (uri: string) => process.call("open", { uri, policy: "fail" as const });
  await assert.rejects(open(uriOf(socket)), { code: "store/unreachable", hint: /NBD server/ });
  await assert.rejects(open("nbd://127.0.0.1:1/x"), { code: "store/unreachable" });
  await assert.rejects(open("nbd://no-such-host.example/x"), { code: "usage/host" });
  await process.call("serve", { server: "s", listen: { path: socket }, fenced: true });
  await assert.rejects(open(uriOf(socket, "none")), {
    code: "not-found/export",
    message: /there is no export none/,
  });
  const before = await process.call("stats", null);
  for (let i = 0; i < 20; i++) await assert.rejects(open(uriOf(socket, "none")));
  // The server's side of a connection may end a moment later.
  await waitUntil(
    async () => (await process.call("stats", null)).descriptors <= before.descriptors,
    { what: "descriptors to come back", within_ms: 5000 },
  );
});

test("a client that is fenced out fails for good", async ({ process, socket, file }) => {
  await Deno.writeFile(file("disk"), new Uint8Array(MIB));
  await process.call("serve", { server: "s", listen: { path: socket }, fenced: true });
  await process.call("exportFile", {
    server: "s",
    name: "data",
    path: file("disk"),
    description: "",
  });
  await using agent = await NbdProcess.start();
  const { client } = await agent.call("open", { uri: uriOf(socket, "data@1"), policy: "hold" });
  assert.deepEqual(errnos(await run(agent, client, [write(0, 512, 1)])), [0]);
  await process.call("promote", { server: "s", name: "data", epoch: 2 });
  assert.deepEqual(errnos(await run(agent, client, [write(0, 512, 2)])), [EIO]);
  assert.deepEqual(agent.events.map((event) => event.type), ["nbd.lost", "nbd.fenced"]);
  assert.equal((await Deno.readFile(file("disk")))[0], 1);
  await agent.call("closeClient", { client });
});
