/**
 * Golden bytes: captured between libnbd 1.14 (nbdinfo --map) and nbdkit 1.32.5, and for 64-bit extents
 * between qemu-io and qemu-nbd 10.0.2.
 */
import assert from "node:assert/strict";
import {
  decodeBlockStatus,
  decodeContext,
  decodeContextQuery,
  decodeExtendedBlockStatus,
  decodeStatusQuery,
  encodeBlockStatus,
  encodeContext,
  encodeContextQuery,
  encodeExtendedBlockStatus,
  encodeStatusQuery,
  NBD_ALLOCATION,
  NBD_STATE,
} from "../../../src/codec/mod.ts";

const GOLDEN = {
  query: "000000026162000000010000000f626173653a616c6c6f636174696f6e",
  everything: "0000000000000000",
  context: "00000001626173653a616c6c6f636174696f6e",
  status: "00000001" + "0001000000000003" + "0000100000000000" + "000ef00000000003",
  extendedStatus: "0000000000000001" + "000000000000f000" + "0000000000000003",
} as const;

const hex = (text: string) =>
  Uint8Array.from(text.match(/../g) ?? [], (pair) => parseInt(pair, 16));
const HOLE = NBD_STATE.hole | NBD_STATE.zero;

const query = { name: "ab", queries: [NBD_ALLOCATION] };
const context = { id: 1, name: NBD_ALLOCATION };
const status = {
  contextId: 1,
  extents: [
    { length: 65_536, flags: HOLE },
    { length: 4096, flags: 0 },
    { length: 978_944, flags: HOLE },
  ],
};
const extendedStatus = { contextId: 0, extents: [{ length: 61_440, flags: HOLE }] };

Deno.test("contexts and extents are encoded as other implementations send them", () => {
  assert.deepEqual(encodeContextQuery(query), hex(GOLDEN.query));
  assert.deepEqual(encodeContextQuery({ name: "", queries: [] }), hex(GOLDEN.everything));
  assert.deepEqual(encodeContext(context), hex(GOLDEN.context));
  assert.deepEqual(encodeBlockStatus(status), hex(GOLDEN.status));
  assert.deepEqual(encodeExtendedBlockStatus(extendedStatus), hex(GOLDEN.extendedStatus));
});

Deno.test("contexts and extents of other implementations are decoded", () => {
  assert.deepEqual(decodeContextQuery(hex(GOLDEN.query)), query);
  assert.deepEqual(decodeContextQuery(hex(GOLDEN.everything)), { name: "", queries: [] });
  assert.deepEqual(decodeContext(hex(GOLDEN.context)), context);
  assert.deepEqual(decodeBlockStatus(hex(GOLDEN.status)), status);
  assert.deepEqual(decodeExtendedBlockStatus(hex(GOLDEN.extendedStatus)), extendedStatus);
});

Deno.test("64-bit extents and status queries come back", () => {
  const large = {
    contextId: 0xfffffffe,
    extents: [{ length: 2 ** 52, flags: 2 ** 33 }, { length: 1, flags: 0 }],
  };
  assert.deepEqual(decodeExtendedBlockStatus(encodeExtendedBlockStatus(large)), large);
  for (const contextIds of [[], [7], [0xffffffff, 0, 1]]) {
    const wanted = { length: 2 ** 40, contextIds };
    assert.deepEqual(decodeStatusQuery(encodeStatusQuery(wanted)), wanted);
  }
  assert.deepEqual(
    encodeStatusQuery({ length: 2 ** 32 + 1, contextIds: [3] }),
    hex("0000000100000001" + "00000003"),
  );
});

Deno.test("decoders of contexts survive truncation at every length", () => {
  const cases: [string, Uint8Array, (bytes: Uint8Array) => unknown, number[]][] = [
    ["query", hex(GOLDEN.query), decodeContextQuery, []],
    // A shorter name is a name, fewer extents are extents: those lengths are whole.
    ["context", hex(GOLDEN.context), decodeContext, [
      5,
      6,
      7,
      8,
      9,
      10,
      11,
      12,
      13,
      14,
      15,
      16,
      17,
      18,
    ]],
    ["status", hex(GOLDEN.status), decodeBlockStatus, [12, 20]],
    ["extended status", hex(GOLDEN.extendedStatus), decodeExtendedBlockStatus, []],
    ["status query", encodeStatusQuery({ length: 9, contextIds: [1, 2] }), decodeStatusQuery, [
      8,
      12,
    ]],
  ];
  for (const [what, bytes, decode, whole] of cases) {
    assert.notEqual(decode(bytes), undefined, what);
    for (let length = 0; length < bytes.length; length++) {
      const decoded = decode(bytes.subarray(0, length));
      assert.equal(decoded !== undefined, whole.includes(length), `${what} cut to ${length}`);
    }
  }
});

Deno.test("decoders of contexts refuse lying lengths, empty extents and doubles", () => {
  const lying = [
    "ffffffff6162000000010000000f626173653a616c6c6f636174696f6e",
    "000000026162ffffffff0000000f626173653a616c6c6f636174696f6e",
    "0000000261620000000100000010626173653a616c6c6f636174696f6e",
    "000000026162000000010000000e626173653a616c6c6f636174696f6e",
    "000000026162000000000000000f626173653a616c6c6f636174696f6e",
    "00000002ffff00000000",
    "00001001" + "61".repeat(4097) + "00000000",
  ];
  for (const text of lying) {
    assert.equal(decodeContextQuery(hex(text)), undefined, text.slice(0, 80));
  }
  assert.equal(decodeContext(hex("00000001ff")), undefined);
  assert.equal(decodeContext(hex("00000001" + "61".repeat(4097))), undefined);
  assert.equal(decodeBlockStatus(hex("000000010000000000000003")), undefined);
  const wrongCount = "0000000000000002" + "000000000000f000" + "0000000000000003";
  assert.equal(decodeExtendedBlockStatus(hex(wrongCount)), undefined);
  const noCount = "0000000000000000" + "000000000000f000" + "0000000000000003";
  assert.deepEqual(decodeExtendedBlockStatus(hex(noCount)), extendedStatus);
  const empty = "0000000000000001" + "0000000000000000" + "0000000000000003";
  assert.equal(decodeExtendedBlockStatus(hex(empty)), undefined);
  assert.equal(decodeStatusQuery(hex("0000000000001000" + "0000000100000001")), undefined);
});
