/** Structured replies, extended headers, block status and requests larger than a slot, byte by byte. */
import assert from "node:assert/strict";
import {
  decodeBlockStatus,
  decodeChunkError,
  decodeContext,
  decodeExtendedBlockStatus,
  decodeInfo,
  encodeContextQuery,
  encodeExportQuery,
  encodeOption,
  encodeStatusQuery,
  NBD_ALLOCATION,
  NBD_CHUNK,
  NBD_CMD,
  NBD_CMD_FLAG,
  NBD_ERROR,
  NBD_FLAG,
  NBD_OPTION,
  NBD_REP,
  NBD_STATE,
} from "../../../src/codec/mod.ts";
import { RawNbd, type RawWish } from "../../support/nbd_raw.ts";
import {
  SERVED_BYTES as SIZE,
  SERVED_MAX_IO as MAX_IO,
  SERVED_SLOTS as SLOTS,
  servedTest as test,
} from "../../support/nbd_served.ts";
import { waitUntil } from "../../support/process.ts";

const KIB = 1024, MIB = 1 << 20;
const HOLE = NBD_STATE.hole | NBD_STATE.zero;
const nothing = new Uint8Array();
const contexts = [NBD_ALLOCATION];
const styles = ["structured", "extended"] as const;

/** The data of a read's chunks, put together; every byte of it must be there once. */
function assembled(chunks: Awaited<ReturnType<RawNbd["chunks"]>>, at: number, length: number) {
  const data = new Uint8Array(length);
  let came = 0;
  for (const { type, payload } of chunks) {
    assert.equal(type, NBD_CHUNK.offsetData);
    const where = Number(new DataView(payload.buffer).getBigUint64(0)) - at;
    data.set(payload.subarray(8), where);
    came += payload.length - 8;
  }
  assert.equal(came, length);
  return data;
}

const statusOf = (style: (typeof styles)[number], payload: Uint8Array) =>
  style === "extended" ? decodeExtendedBlockStatus(payload) : decodeBlockStatus(payload);

/** Bytes that tell their place. */
const pattern = (length: number) =>
  Uint8Array.from({ length }, (_, i) => (i * 31 + (i >> 9)) & 255);

for (const style of styles) {
  test(`${style}: a read is one chunk, and the last`, async ({ socket }) => {
    using raw = await RawNbd.enter(socket, "data", { style });
    const payload = pattern(8192), flags = style === "extended" ? NBD_CMD_FLAG.payloadLength : 0;
    await raw.send({ type: NBD_CMD.write, at: 4096, payload, flags, cookie: 7 });
    if (style === "structured") assert.equal((await raw.reply()).error, 0);
    else {
      assert.deepEqual(await raw.chunks(), [
        { type: NBD_CHUNK.none, done: true, cookie: 7, at: 4096, payload: nothing },
      ]);
    }
    for (const df of [0, NBD_CMD_FLAG.df]) {
      const chunks = await raw.askChunks({ type: NBD_CMD.read, flags: df, at: 5000, length: 3000 });
      assert.equal(chunks.length, 1);
      assert.equal(chunks[0]?.at, style === "extended" ? 5000 : 0);
      assert.deepEqual(assembled(chunks, 5000, 3000), payload.slice(904, 3904));
    }
  });

  test(`${style}: an error is a chunk with a sentence, and the session goes on`, async (served) => {
    using raw = await RawNbd.enter(served.socket, "data", { style, sizes: true, contexts });
    const cases: [Parameters<typeof raw.send>[0], number][] = [
      [{ type: NBD_CMD.read, at: SIZE, length: 1 }, NBD_ERROR.invalid],
      [{ type: NBD_CMD.read, length: MAX_IO + 1 }, NBD_ERROR.invalid],
      [{ type: NBD_CMD.read, length: 0 }, NBD_ERROR.invalid],
      [{ type: NBD_CMD.writeZeroes, at: SIZE - 1, length: 2 }, NBD_ERROR.noSpace],
      [{ type: NBD_CMD.blockStatus, at: SIZE - 1, length: 2 }, NBD_ERROR.invalid],
      [{ type: NBD_CMD.blockStatus, at: 0, length: 0 }, NBD_ERROR.invalid],
      [{ type: NBD_CMD.blockStatus, flags: NBD_CMD_FLAG.df, length: 512 }, NBD_ERROR.invalid],
      [{ type: 200, length: 5 }, NBD_ERROR.invalid],
    ];
    for (const [request, error] of cases) {
      const [chunk, ...more] = await raw.askChunks({ ...request, cookie: 99 });
      assert.ok(chunk);
      assert.deepEqual([chunk.type, chunk.done, chunk.cookie, more.length], [
        NBD_CHUNK.error,
        true,
        99,
        0,
      ]);
      const said = decodeChunkError(chunk.payload);
      assert.equal(said?.error, error);
      assert.ok((said?.message.length ?? 0) > 10);
    }
    assert.equal((await raw.askChunks({ type: NBD_CMD.read, length: 512 })).length, 1);
  });

  test(`${style}: block status tells data from holes`, async ({ socket }) => {
    using raw = await RawNbd.enter(socket, "data", { style, contexts });
    using writer = await RawNbd.enter(socket, "data");
    const status = async (request: { at: number; length: number; flags?: number }) => {
      const [chunk, ...more] = await raw.askChunks({ type: NBD_CMD.blockStatus, ...request });
      assert.equal(more.length, 0);
      const extended = style === "extended";
      assert.equal(chunk?.type, extended ? NBD_CHUNK.blockStatusExtended : NBD_CHUNK.blockStatus);
      return statusOf(style, chunk?.payload ?? nothing)?.extents;
    };
    assert.deepEqual(await status({ at: 0, length: SIZE }), [{ length: SIZE, flags: HOLE }]);
    await writer.ask({ type: NBD_CMD.write, at: MIB, payload: pattern(64 * KIB) });
    await writer.ask({ type: NBD_CMD.write, at: 3 * MIB, payload: pattern(4 * KIB) });
    assert.deepEqual(await status({ at: 0, length: SIZE }), [
      { length: MIB, flags: HOLE },
      { length: 64 * KIB, flags: 0 },
      { length: 2 * MIB - 64 * KIB, flags: HOLE },
      { length: 4 * KIB, flags: 0 },
      { length: 5 * MIB - 4 * KIB, flags: HOLE },
    ]);
    assert.deepEqual(await status({ at: MIB + 1, length: 10 }), [{ length: 10, flags: 0 }]);
    assert.deepEqual(
      await status({ at: MIB - 512, length: SIZE - MIB, flags: NBD_CMD_FLAG.reqOne }),
      [{ length: 512, flags: HOLE }],
    );
    await writer.ask({ type: NBD_CMD.trim, at: MIB, length: 64 * KIB });
    assert.deepEqual(await status({ at: 0, length: 3 * MIB }), [{ length: 3 * MIB, flags: HOLE }]);
  });

  test(`${style}: many block status requests at once are all answered`, async ({ socket }) => {
    using raw = await RawNbd.enter(socket, "data", { style, contexts });
    for (let i = 0; i < 100; i++) {
      await raw.send({ type: NBD_CMD.blockStatus, at: i * 512, length: 512, cookie: i });
    }
    const cookies = new Set<number>();
    for (let i = 0; i < 100; i++) cookies.add((await raw.chunk()).cookie);
    assert.equal(cookies.size, 100);
  });

  test(`${style}: a session that is cut while block status runs leaves nothing`, async (served) => {
    for (let round = 0; round < 20; round++) {
      using raw = await RawNbd.enter(served.socket, "data", { style, contexts });
      for (let i = 0; i < 10; i++) await raw.send({ type: NBD_CMD.blockStatus, length: SIZE });
    }
  });

  test(`${style}: a large read comes in chunks, a large write lands`, async ({ socket }) => {
    await largeRequests(socket, { style });
  });
}

test("simple: a large read comes in one piece, a large write lands", async ({ socket }) => {
  await largeRequests(socket, {});
});

/** Requests of many slots' size, with small ones around them. */
async function largeRequests(socket: string, wish: RawWish): Promise<void> {
  using raw = await RawNbd.enter(socket, "data", wish);
  using other = await RawNbd.enter(socket, "data");
  const simple = wish.style === undefined, length = 5 * MAX_IO + 777, at = 4321;
  const flags = wish.style === "extended" ? NBD_CMD_FLAG.payloadLength : 0;
  const ended = async () => {
    if (wish.style === "extended") assert.equal((await raw.chunk()).type, NBD_CHUNK.none);
    else assert.equal((await raw.reply()).error, 0);
  };
  const small = pattern(512), large = pattern(length).reverse();
  await Promise.all([
    (async () => {
      await raw.send({ type: NBD_CMD.write, payload: small, flags });
      await raw.send({ type: NBD_CMD.write, at, payload: large, flags });
      await raw.send({ type: NBD_CMD.cache, at, length });
      await raw.send({ type: NBD_CMD.write, at: at + 100, payload: small, flags });
    })(),
    (async () => {
      for (let i = 0; i < 4; i++) await ended();
    })(),
  ]);
  large.set(small, 100);
  assert.equal(await other.ask({ type: NBD_CMD.flush }), 0);
  await raw.send({ type: NBD_CMD.read, length: 512 });
  await raw.send({ type: NBD_CMD.read, at, length });
  await raw.send({ type: NBD_CMD.read, at: at + 100, length: 512 });
  const read = async (from: number, bytes: number) => {
    if (!simple) return assembled(await raw.chunks(), from, bytes);
    assert.equal((await raw.reply()).error, 0);
    return await raw.read(bytes);
  };
  assert.deepEqual(await read(0, 512), small);
  assert.deepEqual(await read(at, length), large);
  assert.deepEqual(await read(at + 100, 512), small);
}

test("large requests are judged as a whole before the first part", async ({ socket }) => {
  using raw = await RawNbd.enter(socket, "data");
  const payload = new Uint8Array(3 * MAX_IO).fill(9);
  const beyond = SIZE - 3 * MAX_IO + 1;
  assert.equal(await raw.ask({ type: NBD_CMD.write, at: beyond, payload }), NBD_ERROR.noSpace);
  assert.equal(
    await raw.ask({ type: NBD_CMD.read, at: beyond, length: 3 * MAX_IO }),
    NBD_ERROR.invalid,
  );
  assert.equal(await raw.ask({ type: NBD_CMD.read, length: 32 * MIB + 1 }), NBD_ERROR.invalid);
  await raw.send({ type: NBD_CMD.read, at: SIZE - 4096, length: 4096 });
  assert.equal((await raw.reply()).error, 0);
  assert.ok((await raw.read(4096)).every((byte) => byte === 0));
  using chunks = await RawNbd.enter(socket, "data", { style: "structured" });
  const [refused] = await chunks.askChunks({
    type: NBD_CMD.read,
    flags: NBD_CMD_FLAG.df,
    length: MAX_IO + 1,
  });
  assert.equal(decodeChunkError(refused?.payload ?? nothing)?.error, NBD_ERROR.overflow);
});

test(
  "sessions with large requests share the slots without waiting for each other",
  async (served) => {
    const payload = new Uint8Array(8 * MAX_IO), count = 2 * SLOTS;
    const sessions = await Promise.all(
      Array.from({ length: count }, () => RawNbd.enter(served.socket, "data")),
    );
    await Promise.all(sessions.map(async (raw, i) => {
      const bytes = payload.slice().fill(i);
      const [error] = await Promise.all([
        raw.reply().then((reply) => reply.error),
        raw.send({ type: NBD_CMD.write, payload: bytes }),
      ]);
      assert.equal(error, 0);
      raw[Symbol.dispose]();
    }));
  },
  { sizeBytes: 16 * MIB },
);

test("a client that is gone in the middle of a large request leaves nothing", async (served) => {
  for (let round = 0; round < 20; round++) {
    using raw = await RawNbd.enter(served.socket, "data", round % 2 ? {} : { style: "structured" });
    const payload = new Uint8Array(round * 50_000);
    await raw.send({ type: NBD_CMD.write, length: 1_500_000, payload });
    if (round % 3 !== 0) continue;
    using reader = await RawNbd.enter(served.socket, "data");
    await reader.send({ type: NBD_CMD.read, length: 6 * MIB });
    await reader.read(100_000);
  }
});

test("CACHE reads without sending, FAST_ZERO is honest, no-op flags are taken", async ({ socket }) => {
  using raw = await RawNbd.enter(socket, "data");
  await raw.ask({ type: NBD_CMD.write, payload: new Uint8Array(8192).fill(1) });
  assert.equal(await raw.ask({ type: NBD_CMD.cache, length: 8192 }), 0);
  const fast = NBD_CMD_FLAG.fastZero;
  assert.equal(await raw.ask({ type: NBD_CMD.writeZeroes, flags: fast, length: 4096 }), 0);
  await raw.send({ type: NBD_CMD.read, length: 8192 });
  assert.equal((await raw.reply()).error, 0);
  const data = await raw.read(8192);
  assert.deepEqual([data[0], data[4095], data[4096]], [0, 0, 1]);
});

test("extended: lengths are 64 bits wide", async ({ socket }) => {
  using raw = await RawNbd.enter(socket, "data", { style: "extended", contexts });
  const errorOf = async (request: Parameters<typeof raw.send>[0]) =>
    decodeChunkError((await raw.askChunks(request))[0]?.payload ?? nothing)?.error ?? 0;
  assert.equal(await errorOf({ type: NBD_CMD.trim, length: 2 ** 40 }), NBD_ERROR.invalid);
  assert.equal(await errorOf({ type: NBD_CMD.read, length: 2 ** 33 }), NBD_ERROR.invalid);
  assert.equal(await errorOf({ type: NBD_CMD.writeZeroes, length: 2 ** 53 }), NBD_ERROR.noSpace);
  assert.equal(await errorOf({ type: NBD_CMD.trim, length: SIZE }), 0);
});

test("extended: block status takes the contexts that it is to tell of", async ({ socket }) => {
  using raw = await RawNbd.enter(socket, "data", { style: "extended", contexts });
  const flags = NBD_CMD_FLAG.payloadLength;
  const ask = async (payload: Uint8Array) =>
    (await raw.askChunks({ type: NBD_CMD.blockStatus, flags, payload }))[0];
  const one = await ask(encodeStatusQuery({ length: MIB, contextIds: [1] }));
  assert.deepEqual(decodeExtendedBlockStatus(one?.payload ?? nothing)?.extents, [
    { length: MIB, flags: HOLE },
  ]);
  const none = await ask(encodeStatusQuery({ length: MIB, contextIds: [] }));
  assert.equal(none?.type, NBD_CHUNK.none);
  for (
    const payload of [
      encodeStatusQuery({ length: MIB, contextIds: [2] }),
      encodeStatusQuery({ length: 0, contextIds: [1] }),
      encodeStatusQuery({ length: SIZE + 1, contextIds: [1] }),
      new Uint8Array(16),
      new Uint8Array(5),
      new Uint8Array(100_000),
    ]
  ) {
    const refused = decodeChunkError((await ask(payload))?.payload ?? nothing);
    assert.equal(refused?.error, NBD_ERROR.invalid);
  }
});

test("extended: a payload that a command does not take is skipped, too much of it ends the session", async ({ socket }) => {
  using raw = await RawNbd.enter(socket, "data", { style: "extended" });
  const flags = NBD_CMD_FLAG.payloadLength;
  for (const type of [NBD_CMD.read, NBD_CMD.trim, NBD_CMD.flush, NBD_CMD.blockStatus, 99]) {
    const [chunk] = await raw.askChunks({ type, flags, payload: new Uint8Array(70_000) });
    assert.equal(decodeChunkError(chunk?.payload ?? nothing)?.error, NBD_ERROR.invalid);
  }
  // QEMU sends writes without the flag: their bytes are there all the same.
  const [written] = await raw.askChunks({ type: NBD_CMD.write, payload: new Uint8Array(512) });
  assert.equal(written?.type, NBD_CHUNK.none);
  await raw.send({ type: NBD_CMD.write, flags, length: 2 ** 33 });
  assert.equal(await raw.untilClosed(), 0);
});

test("contexts are listed and chosen, and belong to one export", async ({ socket }) => {
  using raw = await RawNbd.connect(socket);
  await raw.greet();
  const ask = async (option: number, name: string, queries: readonly string[]) => {
    const replies = await raw.option(option, encodeContextQuery({ name, queries }));
    const last = replies.at(-1)?.type;
    return last === NBD_REP.ack
      ? replies.slice(0, -1).map((reply) => decodeContext(reply.data)?.name)
      : last;
  };
  const { listMetaContext, setMetaContext } = NBD_OPTION;
  assert.equal(await ask(listMetaContext, "data", []), NBD_REP.errInvalid);
  assert.equal(await ask(setMetaContext, "data", contexts), NBD_REP.errInvalid);
  assert.equal((await raw.option(NBD_OPTION.structuredReply, nothing))[0]?.type, NBD_REP.ack);
  assert.deepEqual(await ask(listMetaContext, "data", []), contexts);
  assert.deepEqual(await ask(listMetaContext, "data", ["base:"]), contexts);
  assert.deepEqual(await ask(listMetaContext, "data", ["x-other:", "base:nope"]), []);
  assert.equal(await ask(listMetaContext, "data", ["base"]), NBD_REP.errInvalid);
  assert.equal(await ask(listMetaContext, "nope", []), NBD_REP.errUnknown);
  assert.deepEqual(await ask(setMetaContext, "data", ["base:", "qemu:dirty-bitmap:x"]), []);
  assert.deepEqual(await ask(setMetaContext, "data", ["qemu:dirty", NBD_ALLOCATION]), contexts);
  const malformed = await raw.option(setMetaContext, Uint8Array.of(0, 0, 0, 9, 1));
  assert.equal(malformed[0]?.type, NBD_REP.errInvalid);
  assert.deepEqual(await ask(setMetaContext, "two", contexts), contexts);
  // Chosen for another export than the one that is entered: as if not chosen.
  await raw.option(NBD_OPTION.go, encodeExportQuery({ name: "data", wanted: [] }));
  const [refused] = await raw.askChunks({ type: NBD_CMD.blockStatus, length: 512 });
  assert.equal(decodeChunkError(refused?.payload ?? nothing)?.error, NBD_ERROR.invalid);
}, { names: ["data", "two"] });

test("headers are negotiated once, and the flags say what they bring", async ({ socket }) => {
  const flagsOf = async (raw: RawNbd) => {
    const query = encodeExportQuery({ name: "data", wanted: [] });
    const info = decodeInfo((await raw.option(NBD_OPTION.info, query))[0]?.data ?? nothing);
    return info?.type === 0 ? info.flags : 0;
  };
  using raw = await RawNbd.connect(socket);
  await raw.greet();
  const option = async (number: number, data = nothing) =>
    (await raw.option(number, data))[0]?.type;
  const { sendDf, blockStatusPayload, sendCache, sendFastZero } = NBD_FLAG;
  assert.equal(await flagsOf(raw) & (sendDf | blockStatusPayload), 0);
  assert.notEqual(await flagsOf(raw) & sendCache, 0);
  assert.notEqual(await flagsOf(raw) & sendFastZero, 0);
  const { structuredReply, extendedHeaders } = NBD_OPTION;
  assert.equal(await option(structuredReply, Uint8Array.of(1)), NBD_REP.errInvalid);
  assert.equal(await option(extendedHeaders, Uint8Array.of(1)), NBD_REP.errInvalid);
  assert.equal(await option(structuredReply), NBD_REP.ack);
  assert.equal(await option(structuredReply), NBD_REP.errInvalid);
  assert.equal(await flagsOf(raw) & (sendDf | blockStatusPayload), sendDf);
  assert.equal(await option(extendedHeaders), NBD_REP.ack);
  assert.equal(await option(extendedHeaders), NBD_REP.errInvalid);
  assert.equal(await option(structuredReply), NBD_REP.errExtendedHeaderRequired);
  assert.equal(await flagsOf(raw) & (sendDf | blockStatusPayload), sendDf);
  const query = encodeContextQuery({ name: "data", queries: contexts });
  await raw.option(NBD_OPTION.setMetaContext, query);
  assert.equal(await flagsOf(raw) & blockStatusPayload, blockStatusPayload);
  // Too late for the old way in, which the extension forbids.
  await raw.write(encodeOption(NBD_OPTION.exportName, new TextEncoder().encode("data")));
  assert.equal(await raw.untilClosed(), 0);
});

test("who is idle for too long is cut, who waits or works is not", async ({ socket, process }) => {
  using idle = await RawNbd.enter(socket, "data");
  using half = await RawNbd.enter(socket, "data");
  using waiting = await RawNbd.enter(socket, "data");
  await half.send({ type: NBD_CMD.write, length: 4096, payload: new Uint8Array(10) });
  await process.call("gate", { name: "data", open: false });
  await waiting.send({ type: NBD_CMD.write, payload: new Uint8Array(512) });
  assert.equal(await idle.untilClosed(), 0);
  assert.equal(await half.untilClosed(), 0);
  await process.call("gate", { name: "data", open: true });
  assert.equal((await waiting.reply()).error, 0);
  assert.deepEqual(process.events.map((event) => event.message), [
    "cut a session: it was idle",
    "cut a session: it was idle",
  ]);
}, { idle_s: 1 });

test("the number of connections is the one that was asked for", async ({ socket, process }) => {
  const three = await Promise.all([1, 2, 3].map(() => RawNbd.enter(socket, "data")));
  using late = await RawNbd.connect(socket);
  assert.equal(await late.untilClosed(), 0);
  const { connected, accepted, turned_away } = await process.call("stats", null);
  assert.deepEqual([connected, accepted, turned_away], [3, 3, 1]);
  for (const raw of three) raw[Symbol.dispose]();
  await waitUntil(async () => (await process.call("stats", null)).connected === 0, {
    what: "room",
  });
}, { connections: 3 });
