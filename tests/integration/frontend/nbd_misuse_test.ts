/** What a broken or hostile client can do: it hurts itself alone, and leaves nothing behind. */
import assert from "node:assert/strict";
import {
  decodeExportNameAnswer,
  decodeInfo,
  encodeExportQuery,
  encodeOption,
  NBD_CMD,
  NBD_CMD_FLAG,
  NBD_ERROR,
  NBD_FLAG,
  NBD_HANDSHAKE,
  NBD_INFO,
  NBD_OPTION,
  NBD_REP,
  type NbdInfo,
} from "../../../src/codec/mod.ts";
import { RawNbd } from "../../support/nbd_raw.ts";
import { SERVED_BYTES, SERVED_MAX_IO, SERVED_SLOTS, servedTest } from "../../support/nbd_served.ts";
import { waitUntil } from "../../support/process.ts";

const MIB = 1 << 20, SIZE = SERVED_BYTES, SLOTS = SERVED_SLOTS, MAX_IO = SERVED_MAX_IO;
const text = (bytes: Uint8Array | undefined) => new TextDecoder().decode(bytes);
const nothing = new Uint8Array();
const test = servedTest;

test("options that are not served are refused, and negotiation goes on", async ({ socket }) => {
  using raw = await RawNbd.connect(socket);
  await raw.greet();
  for (const option of [5, 4, 12, 77]) {
    const replies = await raw.option(option, nothing);
    assert.deepEqual(replies.map((reply) => reply.type), [NBD_REP.errUnsupported]);
    assert.equal(replies[0]?.option, option);
  }
  const list = await raw.option(NBD_OPTION.list, Uint8Array.of(1));
  assert.equal(list[0]?.type, NBD_REP.errInvalid);
  const malformed = await raw.option(NBD_OPTION.go, Uint8Array.of(0, 0, 0, 9, 1, 2));
  assert.equal(malformed[0]?.type, NBD_REP.errInvalid);
  const unknown = await raw.option(
    NBD_OPTION.info,
    encodeExportQuery({ name: "nope", wanted: [] }),
  );
  assert.equal(unknown[0]?.type, NBD_REP.errUnknown);
  assert.match(text(unknown[0]?.data), /no export nope/);
  const tooBig = await raw.option(NBD_OPTION.info, new Uint8Array(100_000));
  assert.equal(tooBig[0]?.type, NBD_REP.errTooBig);
  const ack = await raw.option(NBD_OPTION.abort, nothing);
  assert.equal(ack[0]?.type, NBD_REP.ack);
  assert.equal(await raw.untilClosed(), 0);
});

test("INFO tells what was asked for, and GO enters the only export by no name", async ({ socket }) => {
  using raw = await RawNbd.connect(socket);
  await raw.greet();
  const ask = async (option: number, wanted: number[]) => {
    const replies = await raw.option(option, encodeExportQuery({ name: "", wanted }));
    assert.equal(replies.at(-1)?.type, NBD_REP.ack);
    return replies.slice(0, -1).map((reply) => decodeInfo(reply.data) as NbdInfo);
  };
  const bare = await ask(NBD_OPTION.info, []);
  assert.deepEqual(bare.map((info) => info.type), [NBD_INFO.export]);
  const full = await ask(NBD_OPTION.go, [NBD_INFO.blockSize, NBD_INFO.name]);
  assert.deepEqual(full[1], { type: NBD_INFO.name, text: "data" });
  assert.deepEqual(full[2], {
    type: NBD_INFO.blockSize,
    minimum: 1,
    preferred: 4096,
    maximum: MAX_IO,
  });
  assert.equal(await raw.ask({ type: NBD_CMD.flush }), 0);
});

test("EXPORT_NAME answers old clients, with and without its zeroes", async ({ socket }) => {
  for (const flags of [NBD_HANDSHAKE.fixedNewstyle, 3]) {
    using raw = await RawNbd.connect(socket);
    await raw.greet(flags);
    await raw.write(encodeOption(NBD_OPTION.exportName, new TextEncoder().encode("data")));
    const answer = decodeExportNameAnswer(await raw.read(flags === 3 ? 10 : 134));
    assert.equal(answer?.sizeBytes, SIZE);
    assert.equal(await raw.ask({ type: NBD_CMD.flush }), 0);
    await raw.send({ type: NBD_CMD.disconnect });
    assert.equal(await raw.untilClosed(), 0);
  }
  using unknown = await RawNbd.connect(socket);
  await unknown.greet();
  await unknown.write(encodeOption(NBD_OPTION.exportName, new TextEncoder().encode("nope")));
  assert.equal(await unknown.untilClosed(), 0);
});

test("requests out of bounds, unknown or with unknown flags fail alone", async ({ socket }) => {
  using raw = await RawNbd.enter(socket, "data", { sizes: true });
  const block = new Uint8Array(4096).fill(7);
  const cases: [Parameters<typeof raw.ask>[0], number][] = [
    [{ type: NBD_CMD.read, at: SIZE, length: 512 }, NBD_ERROR.invalid],
    [{ type: NBD_CMD.read, at: SIZE - 100, length: 512 }, NBD_ERROR.invalid],
    [{ type: NBD_CMD.read, at: 2 ** 53 - 1, length: 1 }, NBD_ERROR.invalid],
    [{ type: NBD_CMD.read, length: MAX_IO + 1 }, NBD_ERROR.invalid],
    [{ type: NBD_CMD.write, at: SIZE - 4095, payload: block }, NBD_ERROR.noSpace],
    [{ type: NBD_CMD.writeZeroes, at: SIZE, length: 1 }, NBD_ERROR.noSpace],
    [{ type: NBD_CMD.trim, at: SIZE, length: 1 }, NBD_ERROR.invalid],
    [{ type: NBD_CMD.cache, at: SIZE, length: 1 }, NBD_ERROR.invalid],
    [{ type: NBD_CMD.cache, length: MAX_IO + 1 }, NBD_ERROR.invalid],
    [{ type: NBD_CMD.cache, flags: NBD_CMD_FLAG.noHole, length: 512 }, NBD_ERROR.invalid],
    [{ type: NBD_CMD.blockStatus, length: 512 }, NBD_ERROR.invalid],
    [{ type: 99, length: 5 }, NBD_ERROR.invalid],
    [{ type: NBD_CMD.read, flags: NBD_CMD_FLAG.df, length: 512 }, NBD_ERROR.invalid],
    [{ type: NBD_CMD.read, flags: 1 << 15, length: 512 }, NBD_ERROR.invalid],
    [{ type: NBD_CMD.write, flags: NBD_CMD_FLAG.payloadLength, payload: block }, NBD_ERROR.invalid],
    [{ type: NBD_CMD.trim, flags: NBD_CMD_FLAG.fastZero, length: 512 }, NBD_ERROR.invalid],
    [{ type: NBD_CMD.write, flags: NBD_CMD_FLAG.noHole, payload: block }, NBD_ERROR.invalid],
    [{ type: NBD_CMD.write, payload: block }, 0],
    [{ type: NBD_CMD.writeZeroes, flags: 3, at: 512, length: 1024 }, 0],
    [{ type: NBD_CMD.flush, flags: NBD_CMD_FLAG.fua }, 0],
  ];
  for (const [request, error] of cases) {
    assert.equal(await raw.ask(request), error, JSON.stringify({ ...request, payload: undefined }));
  }
  await raw.send({ type: NBD_CMD.read, length: 4096, cookie: 77 });
  assert.deepEqual(await raw.reply(), { error: 0, cookieHigh: 0, cookieLow: 77 });
  const data = await raw.read(4096);
  assert.deepEqual([data[511], data[512], data[1535], data[1536]], [7, 0, 0, 7]);
});

test("an oversize write is drained and the session goes on", async ({ socket }) => {
  using raw = await RawNbd.enter(socket, "data", { sizes: true });
  const sending = raw.send({ type: NBD_CMD.write, payload: new Uint8Array(3 * MIB), cookie: 5 });
  assert.deepEqual(await raw.reply(), { error: NBD_ERROR.invalid, cookieHigh: 0, cookieLow: 5 });
  await sending;
  assert.equal(await raw.ask({ type: NBD_CMD.write, payload: new Uint8Array(512) }), 0);
});

test("a read-only export refuses every change", async ({ socket }) => {
  using raw = await RawNbd.connect(socket);
  await raw.greet();
  const replies = await raw.option(NBD_OPTION.go, encodeExportQuery({ name: "data", wanted: [] }));
  const info = decodeInfo(replies[0]?.data ?? nothing);
  assert.ok(info?.type === NBD_INFO.export);
  assert.ok((info.flags & NBD_FLAG.readOnly) !== 0);
  assert.equal(info.flags & (NBD_FLAG.sendTrim | NBD_FLAG.sendWriteZeroes), 0);
  const payload = new Uint8Array(512);
  for (let i = 0; i < 100; i++) await raw.send({ type: NBD_CMD.write, payload, cookie: i });
  for (let i = 0; i < 100; i++) {
    assert.deepEqual(await raw.reply(), {
      error: NBD_ERROR.permission,
      cookieHigh: 0,
      cookieLow: i,
    });
  }
  assert.equal(await raw.ask({ type: NBD_CMD.trim, length: 512 }), NBD_ERROR.permission);
  assert.equal(await raw.ask({ type: NBD_CMD.flush }), 0);
}, { readOnly: true });

test("a wrong magic number ends the session and no other", async ({ socket, process }) => {
  using good = await RawNbd.enter(socket, "data");
  using bad = await RawNbd.enter(socket, "data");
  await bad.write(new Uint8Array(28).fill(0x5a));
  assert.equal(await bad.untilClosed(), 0);
  using early = await RawNbd.connect(socket);
  await early.greet();
  await early.write(new Uint8Array(16).fill(1));
  assert.equal(await early.untilClosed(), 0);
  using flags = await RawNbd.connect(socket);
  await flags.greet(0xff);
  await flags.untilClosed();
  assert.equal(await good.ask({ type: NBD_CMD.flush }), 0);
  assert.equal(process.events.filter((event) => event.type === "nbd.cut").length, 3);
});

test("a handshake cut off at any byte leaves nothing behind", async ({ socket }) => {
  const query = encodeExportQuery({ name: "data", wanted: [3] });
  const whole = new Uint8Array([0, 0, 0, 3, ...encodeOption(NBD_OPTION.go, query)]);
  for (let length = 0; length <= whole.length; length++) {
    using raw = await RawNbd.connect(socket);
    await raw.write(whole.subarray(0, length));
  }
});

test("who does not negotiate in time is cut, who did stays", async ({ socket, process }) => {
  using good = await RawNbd.enter(socket, "data");
  using silent = await RawNbd.connect(socket);
  using slow = await RawNbd.connect(socket);
  await slow.greet();
  await silent.untilClosed();
  await slow.untilClosed();
  assert.equal(await good.ask({ type: NBD_CMD.flush }), 0);
  assert.deepEqual(
    new Set(process.events.map((event) => event.message)),
    new Set([
      "cut a session: its negotiation took too long",
    ]),
  );
}, { handshake_s: 1 });

test("connections beyond the limit are turned away, the others go on", async ({ socket, process }) => {
  using good = await RawNbd.enter(socket, "data");
  const crowd: RawNbd[] = [];
  for (let i = 0; i < 255; i++) {
    const raw = await RawNbd.connect(socket);
    await raw.greet();
    crowd.push(raw);
  }
  for (let i = 0; i < 3; i++) {
    using late = await RawNbd.connect(socket);
    assert.equal(await late.untilClosed(), 0);
  }
  assert.equal(await good.ask({ type: NBD_CMD.flush }), 0);
  assert.deepEqual(process.events.map((event) => event.type), ["nbd.full"]);
  crowd.pop()?.[Symbol.dispose]();
  await waitUntil(async () => (await process.call("stats", null)).connected === 255, {
    what: "room for one more",
  });
  using next = await RawNbd.enter(socket, "data");
  assert.equal(await next.ask({ type: NBD_CMD.flush }), 0);
  for (const raw of crowd) raw[Symbol.dispose]();
});

test("connections dropped mid-request leave no slot behind", async ({ socket, process }) => {
  for (let round = 0; round < 60; round++) {
    using raw = await RawNbd.enter(socket, "data");
    const requests = round % 7;
    for (let i = 0; i < requests; i++) {
      await raw.send({ type: NBD_CMD.read, at: i * 4096, length: 65_536 });
      await raw.send({ type: NBD_CMD.write, at: i * 65_536, payload: new Uint8Array(30_000) });
    }
    // A header that promises more than ever comes.
    await raw.send({ type: NBD_CMD.write, length: 200_000, payload: new Uint8Array(round * 1000) });
  }
  using raw = await RawNbd.enter(socket, "data");
  assert.equal(await raw.ask({ type: NBD_CMD.flush }), 0);
  assert.deepEqual(process.events, []);
});

test("a peer that never reads cannot take more than its share of slots", async (served) => {
  const { socket, process } = served;
  using greedy = await RawNbd.enter(socket, "data");
  using modest = await RawNbd.enter(socket, "data");
  // Without anybody reading the answers, sending them all ends when both sides' buffers are full.
  const flood = (async () => {
    for (let i = 0; i < 5000; i++) await greedy.send({ type: NBD_CMD.read, length: MAX_IO });
  })().catch(() => {});
  await waitUntil(async () => (await process.call("stats", null)).slots_free <= SLOTS - 4, {
    what: "the greedy session to hold slots",
  });
  for (let i = 0; i < 50; i++) {
    assert.equal(await modest.ask({ type: NBD_CMD.write, payload: new Uint8Array(4096) }), 0);
  }
  greedy[Symbol.dispose]();
  await flood;
});

test("requests wait for slots and all are answered", async ({ socket, process }) => {
  using raw = await RawNbd.enter(socket, "data");
  await process.call("gate", { name: "data", open: false });
  const count = 10 * SLOTS;
  const sending = (async () => {
    for (let i = 0; i < count; i++) {
      await raw.send({ type: NBD_CMD.write, at: i * 512, payload: new Uint8Array(512).fill(i) });
    }
  })();
  await waitUntil(async () => (await process.call("stats", null)).held === SLOTS * 3 / 4, {
    what: "the session's share of slots to be held",
  });
  await process.call("gate", { name: "data", open: true });
  for (let i = 0; i < count; i++) assert.equal((await raw.reply()).error, 0);
  await sending;
});

test("removing an export cuts its sessions and waits for their requests", async (served) => {
  const { socket, process } = served;
  using raw = await RawNbd.enter(socket, "data");
  await process.call("gate", { name: "data", open: false });
  await raw.send({ type: NBD_CMD.write, payload: new Uint8Array(512) });
  await waitUntil(async () => (await process.call("stats", null)).held === 1, { what: "a write" });
  let removed = false;
  const removing = process.call("unexport", { server: "s", name: "data" }).then(() => {
    removed = true;
  });
  await raw.untilClosed();
  // A round trip later it would have answered, did it not wait.
  await process.call("stats", null);
  assert.equal(removed, false);
  await process.call("gate", { name: "data", open: true });
  await removing;
  await assert.rejects(RawNbd.enter(socket, "data"), /no export data/);
});
