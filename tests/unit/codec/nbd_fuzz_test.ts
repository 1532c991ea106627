/**
 * Whatever bytes arrive, the NBD codec decodes or refuses them, reads nothing beside them, and gives back what it
 * was given to encode.
 */
import assert from "node:assert/strict";
import fc from "fast-check";
import {
  decodeBlockStatus,
  decodeChunk,
  decodeChunkError,
  decodeChunkErrorAt,
  decodeClientFlags,
  decodeContext,
  decodeContextQuery,
  decodeExportNameAnswer,
  decodeExportQuery,
  decodeExtendedBlockStatus,
  decodeExtendedChunk,
  decodeExtendedRequest,
  decodeGreeting,
  decodeInfo,
  decodeListEntry,
  decodeOptionHeader,
  decodeOptionReplyHeader,
  decodeRequest,
  decodeSimpleReply,
  decodeStatusQuery,
  encodeBlockStatus,
  encodeChunk,
  encodeChunkErrorAt,
  encodeContext,
  encodeContextQuery,
  encodeExportQuery,
  encodeExtendedBlockStatus,
  encodeExtendedChunk,
  encodeExtendedRequest,
  encodeInfo,
  encodeListEntry,
  encodeOption,
  encodeRequest,
  encodeSimpleReply,
  encodeStatusQuery,
  NBD_CHUNK_BYTES,
  NBD_EXTENDED_CHUNK_BYTES,
  NBD_EXTENDED_REQUEST_BYTES,
  NBD_INFO,
  NBD_REQUEST_BYTES,
  NBD_SIMPLE_REPLY_BYTES,
} from "../../../src/codec/mod.ts";
import { fuzzRuns } from "../../support/fuzz.ts";

const runs = { numRuns: fuzzRuns };

const DECODERS: readonly ((bytes: Uint8Array) => unknown)[] = [
  decodeGreeting,
  decodeClientFlags,
  decodeOptionHeader,
  decodeOptionReplyHeader,
  decodeExportQuery,
  decodeInfo,
  decodeListEntry,
  decodeExportNameAnswer,
  decodeContextQuery,
  decodeContext,
  decodeBlockStatus,
  decodeExtendedBlockStatus,
  decodeStatusQuery,
  decodeChunkError,
  decodeChunkErrorAt,
];

/** Plain objects, as the codec makes them. */
const recordOf = <T>(fields: { [K in keyof T]: fc.Arbitrary<T[K]> }): fc.Arbitrary<T> =>
  fc.record<T>(fields, { noNullPrototype: true });

const u16 = fc.nat(0xffff), u32 = fc.nat(0xffffffff);
const place = fc.oneof(
  fc.maxSafeNat(),
  fc.constantFrom(0, 2 ** 32 - 1, 2 ** 32, Number.MAX_SAFE_INTEGER),
);
const text = fc.string({ unit: "grapheme", maxLength: 60 });
const extents = fc.array(
  recordOf({ length: fc.integer({ min: 1, max: 0xffffffff }), flags: u32 }),
  {
    minLength: 1,
    maxLength: 20,
  },
);

/** Messages as a peer would send them, for mutation. */
const whole: fc.Arbitrary<Uint8Array> = fc.oneof(
  recordOf({ name: text, wanted: fc.array(u16, { maxLength: 5 }) }).map(encodeExportQuery),
  recordOf({ name: text, queries: fc.array(text, { maxLength: 5 }) }).map(encodeContextQuery),
  recordOf({ name: text, description: text }).map(encodeListEntry),
  recordOf({ contextId: u32, extents }).map(encodeBlockStatus),
  recordOf({ contextId: u32, extents }).map(encodeExtendedBlockStatus),
  recordOf({ length: place, contextIds: fc.array(u32, { maxLength: 4 }) }).map(encodeStatusQuery),
  fc.tuple(u32, fc.uint8Array({ maxLength: 40 })).map(([option, data]) =>
    encodeOption(option, data)
  ),
);

/** A whole message with a few bytes changed, cut off or added. */
const mutated = fc.tuple(
  whole,
  fc.array(fc.tuple(fc.nat(200), fc.nat(255)), { maxLength: 4 }),
  fc.nat(20),
  fc.uint8Array({ maxLength: 8 }),
).map(([bytes, changes, cut, more]) => {
  const changed = bytes.slice(0, Math.max(0, bytes.length - cut));
  for (const [at, value] of changes) if (at < changed.length) changed[at] = value;
  return Uint8Array.from([...changed, ...more]);
});

/** The same bytes between others, which no decoder may look at. */
function between(bytes: Uint8Array, fill: number): Uint8Array {
  const wide = new Uint8Array(bytes.length + 64).fill(fill);
  wide.set(bytes, 32);
  return wide.subarray(32, 32 + bytes.length);
}

Deno.test("any bytes are decoded or refused, by themselves alone", () => {
  const arbitrary = fc.oneof(fc.uint8Array({ maxLength: 128 }), mutated);
  fc.assert(
    fc.property(arbitrary, (bytes) => {
      for (const decode of DECODERS) {
        const one = decode(between(bytes, 0x00)), other = decode(between(bytes, 0xff));
        if (one !== other) assert.deepEqual(one, other, decode.name);
      }
    }),
    runs,
  );
});

Deno.test("what is decoded from any bytes is within what the protocol allows", () => {
  fc.assert(
    fc.property(mutated, (bytes) => {
      const status = decodeBlockStatus(bytes) ?? decodeExtendedBlockStatus(bytes);
      if (status) assert.ok(status.extents.length > 0 && status.extents.every((e) => e.length > 0));
      const query = decodeContextQuery(bytes);
      if (query) assert.deepEqual(decodeContextQuery(encodeContextQuery(query)), query);
      const asked = decodeExportQuery(bytes);
      if (asked) assert.deepEqual(decodeExportQuery(encodeExportQuery(asked)), asked);
    }),
    runs,
  );
});

Deno.test("records come back from the bytes that they became", () => {
  const record = recordOf({
    flags: u16,
    type: u16,
    cookieHigh: u32,
    cookieLow: u32,
    at: place,
    length: place,
  });
  const bytes = new Uint8Array(96), view = new DataView(bytes.buffer);
  fc.assert(
    fc.property(record, fc.nat(40), (given, offset) => {
      const { flags, type, cookieHigh, cookieLow, at } = given, length = given.length % 2 ** 32;
      const blank = () => ({ flags: 0, type: 0, cookieHigh: 0, cookieLow: 0, at: 0, length: 0 });
      const check = (headerBytes: number, write: () => void, read: () => unknown) => {
        bytes.fill(0xa5);
        write();
        assert.ok(bytes.subarray(0, offset).every((byte) => byte === 0xa5));
        assert.ok(bytes.subarray(offset + headerBytes).every((byte) => byte === 0xa5));
        return read();
      };
      const request = blank();
      check(
        NBD_REQUEST_BYTES,
        () => encodeRequest(view, offset, type, flags, cookieHigh, cookieLow, at, length),
        () => assert.ok(decodeRequest(view, offset, request)),
      );
      assert.deepEqual(request, { ...given, length });
      const extended = blank();
      check(
        NBD_EXTENDED_REQUEST_BYTES,
        () =>
          encodeExtendedRequest(view, offset, type, flags, cookieHigh, cookieLow, at, given.length),
        () => assert.ok(decodeExtendedRequest(view, offset, extended)),
      );
      assert.deepEqual(extended, given);
      const chunk = blank();
      check(
        NBD_CHUNK_BYTES,
        () => encodeChunk(view, offset, type, flags, cookieHigh, cookieLow, length),
        () => assert.ok(decodeChunk(view, offset, chunk)),
      );
      assert.deepEqual(chunk, { ...given, at: 0, length });
      const wide = blank();
      check(
        NBD_EXTENDED_CHUNK_BYTES,
        () =>
          encodeExtendedChunk(view, offset, type, flags, cookieHigh, cookieLow, at, given.length),
        () => assert.ok(decodeExtendedChunk(view, offset, wide)),
      );
      assert.deepEqual(wide, given);
      const reply = { error: 0, cookieHigh: 0, cookieLow: 0 };
      check(
        NBD_SIMPLE_REPLY_BYTES,
        () => encodeSimpleReply(view, offset, length, cookieHigh, cookieLow),
        () => assert.ok(decodeSimpleReply(view, offset, reply)),
      );
      assert.deepEqual(reply, { error: length, cookieHigh, cookieLow });
    }),
    runs,
  );
});

Deno.test("sentences, names and extents come back from the bytes that they became", () => {
  const some = recordOf({
    name: text,
    description: text,
    id: u32,
    error: u32,
    at: place,
    extents,
  });
  fc.assert(
    fc.property(some, ({ name, description, id, error, at, extents }) => {
      assert.deepEqual(decodeListEntry(encodeListEntry({ name, description })), {
        name,
        description,
      });
      if (name !== "") {
        assert.deepEqual(decodeContext(encodeContext({ id, name })), { id, name });
      }
      const info = { type: NBD_INFO.description, text: description } as const;
      assert.deepEqual(decodeInfo(encodeInfo(info)), info);
      const status = { contextId: id, extents };
      assert.deepEqual(decodeBlockStatus(encodeBlockStatus(status)), status);
      assert.deepEqual(decodeExtendedBlockStatus(encodeExtendedBlockStatus(status)), status);
      if (error === 0) return;
      const message = new TextEncoder().encode(description), bytes = new Uint8Array(2000);
      const length = encodeChunkErrorAt(new DataView(bytes.buffer), 0, error, message, at);
      const decoded = decodeChunkErrorAt(bytes.subarray(0, length));
      assert.deepEqual(decoded, { error, message: description, at });
    }),
    runs,
  );
});
