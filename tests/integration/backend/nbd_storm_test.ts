/** Client and server of our own under repeated loss: nothing is lost, nothing leaks. */
import assert from "node:assert/strict";
import { type ClientOperation, NbdProcess } from "../../support/nbd_process.ts";
import { waitUntil } from "../../support/process.ts";
import { requires } from "../../support/requires.ts";
import { type TempDir, tempDir } from "../../support/temp.ts";

const MIB = 1 << 20, EIO = 5;

async function serve(temp: TempDir, port: number): Promise<{ server: NbdProcess; port: number }> {
  const server = await NbdProcess.start({ slots: 64 });
  const { address } = await server.call("serve", {
    server: "s",
    listen: { host: "127.0.0.1", port },
    fenced: true,
  });
  const path = temp.file("disk");
  const file = await Deno.open(path, { create: true, write: true });
  await file.truncate(16 * MIB);
  file.close();
  await server.call("exportFile", { server: "s", name: "data", path, description: "" });
  return { server, port: Number(address.split(":")[1]) };
}

const writes = (round: number): ClientOperation[] =>
  Array.from({ length: 48 }, (_, i) => ({
    code: "write",
    at: i * 300_000,
    length: i % 4 === 0 ? 280_000 : 4096,
    fill: (round + i) & 0xff,
  }));

const test = (name: string, fn: () => Promise<void>) =>
  Deno.test({ name, ...requires({ io_uring: true }), fn });

test("hold: every write is there after fifty lost connections", async () => {
  using temp = tempDir();
  const { server, port } = await serve(temp, 0);
  await using _server = server;
  await using agent = await NbdProcess.start();
  const { client } = await agent.call("open", {
    uri: `nbd://127.0.0.1:${port}/data@1`,
    policy: "hold",
  });
  const before = await agent.call("stats", null);
  for (let round = 0; round < 50; round++) {
    const operations = writes(round);
    const running = agent.call("run", { client, operations });
    await agent.call("abort", { client });
    const { results } = await running;
    assert.deepEqual(new Set(results.map((result) => result.errno)), new Set([0]));
    // On disk now, by whichever connection: what the server's file holds is what was written last.
    using file = await Deno.open(temp.file("disk"));
    for (const { at, length, fill } of operations) {
      const bytes = new Uint8Array(length);
      await file.seek(at, Deno.SeekMode.Start);
      for (let got = 0; got < length;) got += await file.read(bytes.subarray(got)) ?? length;
      assert.ok(bytes.every((byte) => byte === fill), `round ${round} at ${at}`);
    }
  }
  const after = await agent.call("stats", null);
  assert.ok(after.descriptors <= before.descriptors, "descriptors leak in the client");
  assert.equal(after.operations_in_use, 0);
  await agent.call("closeClient", { client });
  await waitUntil(async () => {
    const { connected, slots_free, operations_in_use } = await server.call("stats", null);
    return connected === 0 && slots_free === 64 && operations_in_use === 0;
  }, { what: "the server to be rid of all sessions" });
});

test("hold: a server killed and started again goes unnoticed", async () => {
  using temp = tempDir();
  const { server, port } = await serve(temp, 0);
  await using agent = await NbdProcess.start();
  const { client } = await agent.call("open", {
    uri: `nbd://127.0.0.1:${port}/data@1`,
    policy: "hold",
  });
  let running = agent.call("run", { client, operations: writes(0) });
  let serving = server;
  for (let round = 1; round <= 3; round++) {
    await serving.kill();
    await waitUntil(async () => !(await agent.call("client", { client })).connected, {
      what: "the client to notice",
    });
    serving = (await serve(temp, port)).server;
    const { results } = await running;
    assert.deepEqual(new Set(results.map((result) => result.errno)), new Set([0]));
    running = agent.call("run", { client, operations: writes(round) });
  }
  await running;
  assert.equal((await agent.call("client", { client })).lost, 3);
  await agent.call("closeClient", { client });
  await serving[Symbol.asyncDispose]();
});

test("fail: operations end promptly, fifty times, and nothing leaks", async () => {
  using temp = tempDir();
  const { server, port } = await serve(temp, 0);
  await using _server = server;
  await using agent = await NbdProcess.start();
  const { client } = await agent.call("open", {
    uri: `nbd://127.0.0.1:${port}/data@1`,
    policy: "fail",
  });
  const before = await agent.call("stats", null);
  for (let round = 0; round < 50; round++) {
    await server.call("gate", { name: "data", open: false });
    const running = agent.call("run", { client, operations: writes(round) });
    await agent.call("abort", { client });
    const { results } = await running;
    assert.deepEqual(new Set(results.map((result) => result.errno)), new Set([EIO]));
    await server.call("gate", { name: "data", open: true });
    await waitUntil(async () => (await agent.call("client", { client })).connected, {
      what: "a reconnect",
      every_ms: 5,
    });
    const flush = { code: "flush", at: 0, length: 0 } as const;
    const after = await agent.call("run", { client, operations: [flush] });
    assert.deepEqual(after.results, [{ errno: 0 }]);
  }
  assert.ok((await agent.call("stats", null)).descriptors <= before.descriptors);
  await agent.call("closeClient", { client });
  await waitUntil(async () => {
    const { connected, slots_free, operations_in_use } = await server.call("stats", null);
    return connected === 0 && slots_free === 64 && operations_in_use === 0;
  }, { what: "the server to be rid of all sessions" });
});
