/** A fenced server: who may write, who is cut, and that no old write lands after a new one. */
import assert from "node:assert/strict";
import {
  decodeInfo,
  encodeExportQuery,
  encodeOption,
  NBD_CMD,
  NBD_ERROR,
  NBD_FLAG,
  NBD_INFO,
  NBD_OPTION,
  NBD_REP,
} from "../../../src/codec/mod.ts";
import { NbdProcess } from "../../support/nbd_process.ts";
import { RawNbd } from "../../support/nbd_raw.ts";
import { waitUntil } from "../../support/process.ts";
import { requires } from "../../support/requires.ts";
import { tempDir } from "../../support/temp.ts";

interface Served {
  readonly process: NbdProcess;
  readonly socket: string;
}

async function withServer(fn: (served: Served) => Promise<void>): Promise<void> {
  using temp = tempDir();
  await using process = await NbdProcess.start({ slots: 32, maxIo: 65_536 });
  const socket = temp.file("nbd.sock");
  await process.call("serve", { server: "s", listen: { path: socket }, fenced: true });
  for (const name of ["data", "other"]) {
    const path = temp.file(name);
    await Deno.writeFile(path, new Uint8Array(1 << 20));
    await process.call("exportFile", { server: "s", name, path, description: "", epoch: 3 });
  }
  await fn({ process, socket });
  await waitUntil(async () => {
    const { connected, slots_free } = await process.call("stats", null);
    return connected === 0 && slots_free === 32;
  }, { what: "sessions and slots to come back" });
}

const test = (name: string, fn: (served: Served) => Promise<void>) =>
  Deno.test({ name, ...requires({ io_uring: true }), fn: () => withServer(fn) });

const block = (fill: number) => new Uint8Array(4096).fill(fill);
const write = (fill: number) => ({ type: NBD_CMD.write, payload: block(fill) });

async function firstByte(raw: RawNbd): Promise<number | undefined> {
  await raw.send({ type: NBD_CMD.read, length: 4096 });
  assert.equal((await raw.reply()).error, 0);
  return (await raw.read(4096))[0];
}

const held = async (process: NbdProcess) => (await process.call("stats", null)).held;

test("without an epoch a session only reads", async ({ socket }) => {
  using raw = await RawNbd.enter(socket, "data");
  assert.equal(await raw.ask(write(1)), NBD_ERROR.permission);
  assert.equal(await raw.ask({ type: NBD_CMD.writeZeroes, length: 1 }), NBD_ERROR.permission);
  assert.equal(await firstByte(raw), 0);
});

test("a lower epoch is refused in words, and negotiation goes on", async ({ socket, process }) => {
  using raw = await RawNbd.connect(socket);
  await raw.greet();
  for (const option of [NBD_OPTION.info, NBD_OPTION.go]) {
    const replies = await raw.option(option, encodeExportQuery({ name: "data@2", wanted: [] }));
    assert.equal(replies[0]?.type, NBD_REP.errPolicy);
    const words = new TextDecoder().decode(replies[0]?.data);
    assert.equal(words, "epoch 2 of data is fenced: the epoch is 3");
  }
  const replies = await raw.option(
    NBD_OPTION.go,
    encodeExportQuery({ name: "data@3", wanted: [] }),
  );
  const info = decodeInfo(replies[0]?.data ?? new Uint8Array());
  assert.ok(info?.type === NBD_INFO.export);
  assert.equal(info.flags & (NBD_FLAG.canMultiConn | NBD_FLAG.readOnly), 0);
  assert.equal(await raw.ask(write(1)), 0);
  assert.equal(process.events.filter((event) => event.type === "nbd.refused").length, 2);
});

test("a newer writer cuts the older, not readers and not other volumes", async ({ socket }) => {
  using reader = await RawNbd.enter(socket, "data");
  using other = await RawNbd.enter(socket, "other@3");
  using first = await RawNbd.enter(socket, "data@3");
  assert.equal(await first.ask(write(1)), 0);
  using again = await RawNbd.enter(socket, "data@3");
  assert.equal(await first.untilClosed(), 0);
  using higher = await RawNbd.enter(socket, "data@5");
  assert.equal(await again.untilClosed(), 0);
  assert.equal(await higher.ask(write(5)), 0);
  assert.equal(await firstByte(reader), 5);
  assert.equal(await other.ask(write(2)), 0);
  await assert.rejects(RawNbd.enter(socket, "data@4"), /epoch 4 of data is fenced/);
});

test("a new writer begins only when the old one's writes have landed", async (served) => {
  const { socket, process } = served;
  using old = await RawNbd.enter(socket, "data@3");
  await process.call("gate", { name: "data", open: false });
  await old.send(write(1));
  await waitUntil(async () => await held(process) === 1, { what: "the old write" });

  using successor = await RawNbd.connect(socket);
  await successor.greet();
  const query = encodeExportQuery({ name: "data@4", wanted: [] });
  await successor.write(encodeOption(NBD_OPTION.go, query));
  await old.untilClosed();
  let answered = false;
  const answer = successor.optionReplies().then((replies) => {
    answered = true;
    return replies;
  });
  using reader = await RawNbd.enter(socket, "data");
  assert.equal(answered, false);

  await process.call("gate", { name: "data", open: true });
  assert.equal((await answer).at(-1)?.type, NBD_REP.ack);
  assert.equal(await firstByte(successor), 1);
  assert.equal(await successor.ask(write(9)), 0);
  assert.equal(await firstByte(reader), 9);
});

test("also a writer whose connection broke is waited for", async ({ socket, process }) => {
  const old = await RawNbd.enter(socket, "data@3");
  await process.call("gate", { name: "data", open: false });
  await old.send(write(1));
  await waitUntil(async () => await held(process) === 1, { what: "the old write" });
  old[Symbol.dispose]();
  await waitUntil(async () => (await process.call("stats", null)).connected === 0, {
    what: "the server to notice",
  });
  let entered = false;
  const entering = RawNbd.enter(socket, "data@3").then((raw) => {
    entered = true;
    return raw;
  });
  using reader = await RawNbd.enter(socket, "data");
  assert.equal(entered, false);
  await process.call("gate", { name: "data", open: true });
  using successor = await entering;
  assert.equal(await successor.ask(write(9)), 0);
  assert.equal(await firstByte(reader), 9);
});

test("bytes of a cut session that were not read yet are never written", async (served) => {
  const { socket, process } = served;
  using old = await RawNbd.enter(socket, "data@3");
  await process.call("gate", { name: "data", open: false });
  // More than the session's share of slots: the rest stays in the buffer and the socket.
  const flood = (async () => {
    for (let i = 0; i < 200; i++) await old.send({ ...write(1), at: i * 4096 });
  })().catch(() => {});
  await waitUntil(async () => await held(process) === 24, { what: "a share of writes" });
  using reader = await RawNbd.enter(socket, "data");
  const promoted = process.call("promote", { server: "s", name: "data", epoch: 4 });
  await old.untilClosed();
  await flood;
  await process.call("gate", { name: "data", open: true });
  await promoted;
  await reader.send({ type: NBD_CMD.read, at: 24 * 4096, length: 16 * 4096 });
  assert.equal((await reader.reply()).error, 0);
  assert.deepEqual(await reader.read(16 * 4096), new Uint8Array(16 * 4096));
});

test("promote() cuts lower epochs, waits for them, and only rises", async (served) => {
  const { socket, process } = served;
  using old = await RawNbd.enter(socket, "data@3");
  await process.call("gate", { name: "data", open: false });
  await old.send(write(1));
  await waitUntil(async () => await held(process) === 1, { what: "the old write" });
  let done = false;
  const promoted = process.call("promote", { server: "s", name: "data", epoch: 4 }).then(() => {
    done = true;
  });
  await old.untilClosed();
  await process.call("stats", null);
  assert.equal(done, false);
  await process.call("gate", { name: "data", open: true });
  await promoted;
  await assert.rejects(RawNbd.enter(socket, "data@3"), /is fenced/);
  using next = await RawNbd.enter(socket, "data@4");
  await process.call("promote", { server: "s", name: "data", epoch: 4 });
  assert.equal(await next.ask(write(4)), 0, "the same epoch goes on");
  await assert.rejects(process.call("promote", { server: "s", name: "data", epoch: 3 }), {
    code: "fenced/epoch",
  });
  await assert.rejects(process.call("promote", { server: "s", name: "none", epoch: 3 }), {
    code: "not-found/export",
  });
});
