/**
 * Golden bytes: structured replies of nbdkit 1.32.5 to QEMU 7.2 (qemu-io) and libnbd 1.14 (nbdinfo --map),
 * extended ones of qemu-nbd 10.0.2 to its own qemu-io. Holes and errors with a message: the layout of the
 * specification.
 */
import assert from "node:assert/strict";
import {
  decodeChunk,
  decodeChunkError,
  decodeChunkErrorAt,
  decodeDataOffset,
  decodeExtendedChunk,
  decodeExtendedRequest,
  decodeHole,
  encodeChunk,
  encodeChunkError,
  encodeChunkErrorAt,
  encodeDataOffset,
  encodeExtendedChunk,
  encodeExtendedRequest,
  encodeHole,
  NBD_CHUNK,
  NBD_CHUNK_BYTES,
  NBD_CHUNK_ERROR_AT_BYTES,
  NBD_CHUNK_ERROR_BYTES,
  NBD_CHUNK_FLAG,
  NBD_CMD,
  NBD_CMD_FLAG,
  NBD_DATA_OFFSET_BYTES,
  NBD_ERROR,
  NBD_EXTENDED_CHUNK_BYTES,
  NBD_EXTENDED_REQUEST_BYTES,
  NBD_HOLE_BYTES,
  type NbdChunk,
  type NbdRequest,
} from "../../../src/codec/mod.ts";

const GOLDEN = {
  data: "668e33ef00010001000055c1a31eb0c0000002080000000000010000",
  status: "668e33ef0001000500000000000000010000001c",
  error: "668e33ef000180010000555d9d03b0c0000000060000001c0000",
  extendedRead: "21e41c7100000000000000000000000100000000000100000000000000000200",
  extendedWrite: "21e41c7100010001000000000000000100000000000000000000000000000004",
  extendedStatus: "21e41c71000800070000000000000001000000000001000000000000000f0000",
  extendedData: "6e8a278c000100010000000000000001000000000001000000000000000002080000000000010000",
  extendedDone: "6e8a278c00010000000000000000000100000000000000000000000000000000",
} as const;

const hex = (text: string) =>
  Uint8Array.from(text.match(/../g) ?? [], (pair) => parseInt(pair, 16));
const emptyChunk = (): NbdChunk => ({
  flags: 0,
  type: 0,
  cookieHigh: 0,
  cookieLow: 0,
  at: 0,
  length: 0,
});

/** A view on bytes that begin at an odd place of a larger buffer full of something else. */
function within(bytes: Uint8Array, offset: number): DataView {
  const buffer = new Uint8Array(bytes.length + offset + 7).fill(0xee);
  buffer.set(bytes, offset);
  return new DataView(buffer.buffer);
}

Deno.test("structured chunks are those of other implementations", () => {
  const cases: [string, Omit<NbdChunk, "at">][] = [
    [GOLDEN.data, {
      type: NBD_CHUNK.offsetData,
      flags: NBD_CHUNK_FLAG.done,
      cookieHigh: 0x55c1,
      cookieLow: 0xa31eb0c0,
      length: 520,
    }],
    [GOLDEN.status, {
      type: NBD_CHUNK.blockStatus,
      flags: NBD_CHUNK_FLAG.done,
      cookieHigh: 0,
      cookieLow: 1,
      length: 28,
    }],
    [GOLDEN.error, {
      type: NBD_CHUNK.error,
      flags: NBD_CHUNK_FLAG.done,
      cookieHigh: 0x555d,
      cookieLow: 0x9d03b0c0,
      length: 6,
    }],
  ];
  for (const [golden, expected] of cases) {
    const view = within(hex(golden), 5), chunk = emptyChunk();
    assert.ok(decodeChunk(view, 5, chunk));
    assert.deepEqual(chunk, { ...expected, at: 0 });
    const out = new Uint8Array(30).fill(0xee), { type, flags, cookieHigh, cookieLow } = expected;
    const { length } = expected;
    encodeChunk(new DataView(out.buffer), 3, type, flags, cookieHigh, cookieLow, length);
    assert.deepEqual(out.slice(3, 3 + NBD_CHUNK_BYTES), hex(golden).slice(0, NBD_CHUNK_BYTES));
    assert.deepEqual([out[2], out[3 + NBD_CHUNK_BYTES]], [0xee, 0xee]);
  }
  assert.equal(decodeChunk(within(hex(GOLDEN.extendedData), 0), 0, emptyChunk()), false);
});

Deno.test("extended requests are those of other implementations", () => {
  const cases: [string, NbdRequest][] = [
    [GOLDEN.extendedRead, {
      type: NBD_CMD.read,
      flags: 0,
      cookieHigh: 0,
      cookieLow: 1,
      at: 65_536,
      length: 512,
    }],
    [GOLDEN.extendedWrite, {
      type: NBD_CMD.write,
      flags: NBD_CMD_FLAG.fua,
      cookieHigh: 0,
      cookieLow: 1,
      at: 0,
      length: 4,
    }],
    [GOLDEN.extendedStatus, {
      type: NBD_CMD.blockStatus,
      flags: NBD_CMD_FLAG.reqOne,
      cookieHigh: 0,
      cookieLow: 1,
      at: 65_536,
      length: 0xf0000,
    }],
  ];
  for (const [golden, expected] of cases) {
    const request = { flags: 0, type: 0, cookieHigh: 0, cookieLow: 0, at: 0, length: 0 };
    assert.ok(decodeExtendedRequest(within(hex(golden), 3), 3, request));
    assert.deepEqual(request, expected);
    const { type, flags, cookieHigh, cookieLow, at, length } = expected;
    const out = new Uint8Array(40).fill(0xee), view = new DataView(out.buffer);
    encodeExtendedRequest(view, 1, type, flags, cookieHigh, cookieLow, at, length);
    assert.deepEqual(out.slice(1, 1 + NBD_EXTENDED_REQUEST_BYTES), hex(golden));
    assert.equal(out[1 + NBD_EXTENDED_REQUEST_BYTES], 0xee);
  }
  const request = { flags: 0, type: 0, cookieHigh: 0, cookieLow: 0, at: 0, length: 0 };
  assert.equal(decodeExtendedRequest(within(hex(GOLDEN.extendedData), 0), 0, request), false);
});

Deno.test("extended chunks are those of other implementations", () => {
  const cases: [string, NbdChunk][] = [
    [GOLDEN.extendedData, {
      type: NBD_CHUNK.offsetData,
      flags: NBD_CHUNK_FLAG.done,
      cookieHigh: 0,
      cookieLow: 1,
      at: 65_536,
      length: 520,
    }],
    [GOLDEN.extendedDone, {
      type: NBD_CHUNK.none,
      flags: NBD_CHUNK_FLAG.done,
      cookieHigh: 0,
      cookieLow: 1,
      at: 0,
      length: 0,
    }],
  ];
  for (const [golden, expected] of cases) {
    const chunk = emptyChunk();
    assert.ok(decodeExtendedChunk(within(hex(golden), 1), 1, chunk));
    assert.deepEqual(chunk, expected);
    const { type, flags, cookieHigh, cookieLow, at, length } = expected;
    const out = new Uint8Array(40).fill(0xee), view = new DataView(out.buffer);
    encodeExtendedChunk(view, 2, type, flags, cookieHigh, cookieLow, at, length);
    assert.deepEqual(
      out.slice(2, 2 + NBD_EXTENDED_CHUNK_BYTES),
      hex(golden).slice(0, NBD_EXTENDED_CHUNK_BYTES),
    );
  }
  assert.equal(decodeExtendedChunk(within(hex(GOLDEN.data), 0), 0, emptyChunk()), false);
});

Deno.test("lengths and offsets are carried up to 2^53", () => {
  const view = new DataView(new ArrayBuffer(32)), chunk = emptyChunk();
  for (const at of [0, 2 ** 32 - 1, 2 ** 32, 2 ** 40 + 512, Number.MAX_SAFE_INTEGER]) {
    encodeExtendedChunk(view, 0, NBD_CHUNK.offsetData, 0, 0xffffffff, 0xfffffffe, at, at);
    assert.ok(decodeExtendedChunk(view, 0, chunk));
    assert.deepEqual([chunk.at, chunk.length, chunk.cookieHigh], [at, at, 0xffffffff]);
    encodeExtendedRequest(view, 0, NBD_CMD.trim, 0, 0, 0, at, at);
    assert.ok(decodeExtendedRequest(view, 0, chunk));
    assert.deepEqual([chunk.at, chunk.length], [at, at]);
    encodeDataOffset(view, 4, at);
    assert.equal(decodeDataOffset(view, 4), at);
  }
});

Deno.test("data and hole chunks name their place in the export", () => {
  const data = hex(GOLDEN.data), view = within(data, 0);
  assert.equal(decodeDataOffset(view, NBD_CHUNK_BYTES), 65_536);
  const out = new Uint8Array(NBD_HOLE_BYTES + 1).fill(0xee), hole = { at: 0, length: 0 };
  encodeDataOffset(new DataView(out.buffer), 0, 65_536);
  assert.deepEqual(out.slice(0, NBD_DATA_OFFSET_BYTES), data.slice(NBD_CHUNK_BYTES));
  encodeHole(new DataView(out.buffer), 0, 2 ** 33 + 512, 0x8000_0000);
  assert.deepEqual(out, hex("000000020000020080000000" + "ee"));
  decodeHole(new DataView(out.buffer), 0, hole);
  assert.deepEqual(hole, { at: 2 ** 33 + 512, length: 0x8000_0000 });
});

Deno.test("error chunks carry an error, a sentence and perhaps an offset", () => {
  const golden = hex(GOLDEN.error).slice(NBD_CHUNK_BYTES);
  assert.deepEqual(decodeChunkError(golden), { error: NBD_ERROR.noSpace, message: "" });
  const out = new Uint8Array(64).fill(0xee), view = new DataView(out.buffer);
  assert.equal(
    encodeChunkError(view, 0, NBD_ERROR.noSpace, new Uint8Array()),
    NBD_CHUNK_ERROR_BYTES,
  );
  assert.deepEqual(out.slice(0, NBD_CHUNK_ERROR_BYTES), golden);
  const message = new TextEncoder().encode("größer");
  const plain = encodeChunkError(view, 0, NBD_ERROR.invalid, message);
  assert.equal(plain, NBD_CHUNK_ERROR_BYTES + message.length);
  assert.deepEqual(decodeChunkError(out.subarray(0, plain)), { error: 22, message: "größer" });
  const placed = encodeChunkErrorAt(view, 0, NBD_ERROR.io, message, 2 ** 40);
  assert.equal(placed, NBD_CHUNK_ERROR_AT_BYTES + message.length);
  const bytes = out.slice(0, placed);
  assert.deepEqual(decodeChunkErrorAt(bytes), { error: 5, message: "größer", at: 2 ** 40 });
  assert.deepEqual(decodeChunkError(bytes), { error: 5, message: "größer" });
  for (let length = 0; length < placed; length++) {
    assert.equal(decodeChunkErrorAt(bytes.subarray(0, length)), undefined, `cut to ${length}`);
    if (length >= plain) continue;
    assert.equal(decodeChunkError(bytes.subarray(0, length)), undefined, `cut to ${length}`);
  }
});

Deno.test("decodeChunkError() refuses no error, and a message that is longer than it may be", () => {
  assert.equal(decodeChunkError(hex("000000000000")), undefined);
  assert.equal(decodeChunkError(hex("000000050001")), undefined);
  const long = new Uint8Array(6 + 5000);
  new DataView(long.buffer).setUint32(0, 5);
  new DataView(long.buffer).setUint16(4, 4097);
  assert.equal(decodeChunkError(long), undefined);
  new DataView(long.buffer).setUint16(4, 4096);
  assert.equal(decodeChunkError(long)?.message.length, 4096);
});
