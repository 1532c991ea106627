/** The client against servers that stay connected and say nothing. */
import assert from "node:assert/strict";
import { nbdkit, uriOf } from "../../support/nbd_peers.ts";
import { type ClientOperation, NbdProcess } from "../../support/nbd_process.ts";
import { kill, waitUntil } from "../../support/process.ts";
import { requires } from "../../support/requires.ts";
import { type TempDir, tempDir } from "../../support/temp.ts";

const MIB = 1 << 20, EIO = 5;
/** With more, nbdkit 1.32 aborts when one of them answers on a connection that another is closing. */
const ONE_THREAD = "--threads=1";
const options = { answerLimitMs: 400, dialLimitMs: 400, fenced: true };

const writes: readonly ClientOperation[] = Array.from({ length: 20 }, (_, i) => ({
  code: "write",
  at: i * 300_000,
  length: 200_000,
  fill: i + 1,
}));

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

async function errnos(
  process: NbdProcess,
  client: number,
  operations: readonly ClientOperation[],
): Promise<Set<number>> {
  const { results } = await process.call("run", { client, operations });
  return new Set(results.map(({ errno }) => errno));
}

function untilLost(process: NbdProcess, client: number): Promise<unknown> {
  return waitUntil(async () => !(await process.call("client", { client })).connected, {
    what: "the client to give the server up",
  });
}

test("hold: a stopped server is given up, and its requests are sent again", async (bench) => {
  const { process, socket } = bench;
  await using server = await nbdkit(socket, [ONE_THREAD, "memory", "16M"]);
  const { client } = await process.call("open", { uri: uriOf(socket), policy: "hold", options });
  kill(server.pid, "SIGSTOP");
  try {
    const running = errnos(process, client, writes);
    await untilLost(process, client);
    assert.match(process.events[0]?.message ?? "", /has not answered for 0\.4 s/);
    kill(server.pid, "SIGCONT");
    assert.deepEqual(await running, new Set([0]));
  } finally {
    kill(server.pid, "SIGCONT");
  }
  assert.deepEqual(process.events.slice(0, 2).map(({ type }) => type), [
    "nbd.lost",
    "nbd.connected",
  ]);
  await process.call("closeClient", { client });
});

test("hold: a connection with writes is waited for where a late one could land after a newer one", async (bench) => {
  const { process, socket } = bench;
  await using server = await nbdkit(socket, [ONE_THREAD, "memory", "16M"]);
  const { client } = await process.call("open", {
    uri: uriOf(socket),
    policy: "hold",
    options: { ...options, fenced: false },
  });
  const read: ClientOperation = { code: "read", at: 0, length: 4096 };
  kill(server.pid, "SIGSTOP");
  try {
    const running = errnos(process, client, writes);
    await waitUntil(() => process.events.some(({ type }) => type === "nbd.slow"), {
      what: "the client to say that the server is slow",
    });
    assert.equal((await process.call("client", { client })).connected, true);
    kill(server.pid, "SIGCONT");
    assert.deepEqual(await running, new Set([0]));
    assert.equal((await process.call("client", { client })).lost, 0);
    // Without a write on its way nothing can land late.
    kill(server.pid, "SIGSTOP");
    const reading = errnos(process, client, [read]);
    await untilLost(process, client);
    kill(server.pid, "SIGCONT");
    assert.deepEqual(await reading, new Set([0]));
  } finally {
    kill(server.pid, "SIGCONT");
  }
  await process.call("closeClient", { client });
});

test("fail: what a stopped server holds fails, and it is connected to again", async (bench) => {
  const { process, socket } = bench;
  await using server = await nbdkit(socket, [ONE_THREAD, "memory", "16M"]);
  const { client } = await process.call("open", { uri: uriOf(socket), policy: "fail", options });
  kill(server.pid, "SIGSTOP");
  try {
    assert.deepEqual(await errnos(process, client, writes), new Set([EIO]));
  } finally {
    kill(server.pid, "SIGCONT");
  }
  await waitUntil(async () => (await process.call("client", { client })).connected, {
    what: "a reconnect",
  });
  assert.deepEqual(await errnos(process, client, writes), new Set([0]));
  await process.call("closeClient", { client });
});

test("hold: work that is slower than the limit ends all the same", async (bench) => {
  const { process, socket } = bench;
  await using _server = await lastingNbdkit(socket, [
    "--filter=delay",
    "memory",
    "16M",
    "wdelay=1100ms",
  ]);
  const { client } = await process.call("open", { uri: uriOf(socket), policy: "hold", options });
  assert.deepEqual(await errnos(process, client, writes.slice(0, 2)), new Set([0]));
  const { lost } = await process.call("client", { client });
  assert.ok(lost >= 1, "it was never given up: the test shows nothing");
  await process.call("closeClient", { client });
});

/** nbdkit may die of a client that leaves in the midst of a delay: then another takes its place. */
async function lastingNbdkit(socket: string, args: readonly string[]): Promise<AsyncDisposable> {
  const servers = new AsyncDisposableStack();
  let isOver = false;
  const begin = async (): Promise<void> => {
    const server = servers.use(await nbdkit(socket, [ONE_THREAD, ...args]));
    server.status.then(() => isOver ? undefined : begin());
  };
  await begin();
  return {
    async [Symbol.asyncDispose]() {
      isOver = true;
      await servers.disposeAsync();
    },
  };
}

test("a server that answers each request in time is never given up", async (bench) => {
  const { process, socket } = bench;
  await using _server = await nbdkit(socket, ["--filter=delay", "memory", "16M", "wdelay=100ms"]);
  const { client } = await process.call("open", {
    uri: uriOf(socket),
    policy: "fail",
    options: { answerLimitMs: 1500 },
  });
  for (let round = 0; round < 20; round++) {
    assert.deepEqual(await errnos(process, client, writes.slice(0, 4)), new Set([0]));
  }
  assert.equal((await process.call("client", { client })).lost, 0);
  await process.call("closeClient", { client });
});

test("a server that accepts and says nothing is not waited for", async ({ process, temp }) => {
  const path = temp.file("mute.sock");
  using _listener = Deno.listen({ transport: "unix", path });
  await assert.rejects(process.call("open", { uri: uriOf(path), policy: "fail", options }), {
    code: "store/unreachable",
    message: /did not answer in time/,
  });
});

test("closing gives up a server that is being connected to", async ({ process, socket }) => {
  const server = await nbdkit(socket, ["memory", "1M"]);
  const { client } = await process.call("open", {
    uri: uriOf(socket),
    policy: "hold",
    options: { dialLimitMs: 60_000 },
  });
  kill(server.pid, "SIGKILL");
  await server.status;
  await untilLost(process, client);
  await Deno.remove(socket);
  using _listener = Deno.listen({ transport: "unix", path: socket });
  const held = errnos(process, client, [{ code: "write", at: 0, length: MIB / 2, fill: 1 }]);
  await process.call("closeClient", { client });
  assert.deepEqual(await held, new Set([EIO]));
});
