/**
 * Whatever arrives on /dev/fuse is parsed or refused: nothing is read outside of the message, nothing is
 * written outside of the reply, and what is accepted is as long as its kind must be.
 */
import assert from "node:assert/strict";
import fc from "fast-check";
import {
  checkFuseRequest,
  decodeFuseInit,
  encodeFuseAttrReply,
  encodeFuseInitReply,
  encodeFuseOpenReply,
  encodeFuseOutHeader,
  encodeFuseStatfsReply,
  encodeFuseWriteReply,
  FUSE_IN_HEADER_BYTES,
  FUSE_OPCODE,
  FUSE_WRITE_PAYLOAD_BYTES,
  fuseFallocateLength,
  fuseFallocateMode,
  fuseIoLength,
  fuseIoOffset,
  fuseOpcode,
  fuseSetattrSize,
  fuseSetattrValid,
  fuseUniqueHigh,
  fuseUniqueLow,
  fuseWriteOpenFlags,
} from "../../../src/codec/mod.ts";
import { fuzzRuns } from "../../support/fuzz.ts";

const EIO = 5;
const WORDS = 64;
/** What stands around a message or a reply. */
const CANARY = 0xdeadbeef;
const runs = { numRuns: fuzzRuns };

const anyWord = fc.oneof(
  fc.integer({ min: 0, max: 0xffffffff }),
  fc.constantFrom(0, 1, 40, 80, 4096, 0x7fffffff, 0x80000000, 0xffffffff),
);
const anyOpcode = fc.oneof(
  fc.constantFrom(...Object.values(FUSE_OPCODE)),
  fc.constantFrom(0, 1, 63, 64, 4096, 0xffffffff),
);

/** Words of memory of which only those of one message may be looked at. */
function guarded(words: Uint32Array, at: number, bytes: number): Uint32Array {
  const end = at + Math.ceil(bytes / 4);
  return new Proxy(words, {
    get(target, key) {
      const index = typeof key === "string" ? Number(key) : NaN;
      if (Number.isInteger(index) && (index < at || index >= end)) {
        throw new Error(`word ${index} was read, the message has ${at} to ${end}`);
      }
      return Reflect.get(target, key, target);
    },
  });
}

/** Reads every field that the frontend reads of a request of its kind. @returns the numbers. */
function readAll(words: Uint32Array, at: number): number[] {
  const fields = [fuseUniqueLow(words, at), fuseUniqueHigh(words, at)];
  const opcode = fuseOpcode(words, at);
  if (opcode === FUSE_OPCODE.read || opcode === FUSE_OPCODE.write) {
    fields.push(fuseIoOffset(words, at), fuseIoLength(words, at));
  }
  if (opcode === FUSE_OPCODE.write) fields.push(fuseWriteOpenFlags(words, at));
  if (opcode === FUSE_OPCODE.lseek) fields.push(fuseIoOffset(words, at));
  if (opcode === FUSE_OPCODE.fallocate) {
    fields.push(fuseIoOffset(words, at), fuseFallocateLength(words, at));
    fields.push(fuseFallocateMode(words, at));
  }
  if (opcode === FUSE_OPCODE.setattr) {
    fields.push(fuseSetattrValid(words, at), fuseSetattrSize(words, at));
  }
  if (opcode === FUSE_OPCODE.init) {
    const { major, minor, maxReadaheadBytes, flags, flags2 } = decodeFuseInit(words, at);
    fields.push(major, minor, maxReadaheadBytes, flags, flags2);
  }
  return fields;
}

/** What must hold of any bytes at all. */
function judge(message: readonly number[], bytes: number, at: number): void {
  const memory = new Uint32Array(at + message.length + 2).fill(CANARY);
  memory.set(message, at);
  const words = guarded(memory, at, bytes);
  const verdict = checkFuseRequest(words, at, bytes);
  assert.ok([-1, 0, EIO].includes(verdict), `verdict ${verdict}`);
  const trusted = bytes >= FUSE_IN_HEADER_BYTES && message[0] === bytes;
  assert.equal(verdict === -1, !trusted);
  // A refusal is a reply: it needs the request's id, and nothing of its body.
  if (verdict === EIO) fuseUniqueLow(guarded(memory, at, FUSE_IN_HEADER_BYTES), at);
  if (verdict !== 0) return;
  for (const field of readAll(words, at)) {
    assert.ok(Number.isInteger(field) && field >= 0, `a field is ${field}`);
  }
  if (fuseOpcode(words, at) === FUSE_OPCODE.write) {
    assert.equal(fuseIoLength(words, at), bytes - FUSE_WRITE_PAYLOAD_BYTES);
  }
}

Deno.test("checkFuseRequest() takes any bytes", () => {
  const anything = fc.record({
    message: fc.array(anyWord, { minLength: 1, maxLength: WORDS }),
    at: fc.nat({ max: 9 }),
    bytes: fc.nat({ max: WORDS * 4 }),
  });
  fc.assert(
    fc.property(anything, ({ message, at, bytes }) => {
      judge(message, Math.min(bytes, message.length * 4), at);
    }),
    runs,
  );
});

Deno.test("checkFuseRequest() takes requests of every kind, cut and lengthened anywhere", () => {
  const request = fc.record({
    opcode: anyOpcode,
    body: fc.array(anyWord, { maxLength: WORDS - FUSE_IN_HEADER_BYTES / 4 }),
    /** Bytes missing of the last word, and what the header says beyond the truth. */
    short: fc.nat({ max: 3 }),
    lie: fc.oneof({ weight: 5, arbitrary: fc.constant(0) }, fc.integer({ min: -64, max: 64 })),
    honestWrite: fc.boolean(),
  });
  fc.assert(
    fc.property(request, ({ opcode, body, short, lie, honestWrite }) => {
      const bytes = FUSE_IN_HEADER_BYTES + Math.max(body.length * 4 - short, 0);
      const message = [bytes + lie >>> 0, opcode, 7, 0, 1, 0, 0, 0, 0, 0, ...body];
      const length = FUSE_IN_HEADER_BYTES / 4 + 4;
      if (honestWrite && message.length > length) message[length] = bytes - 80 >>> 0;
      judge(message, bytes, 3);
    }),
    runs,
  );
});

Deno.test("checkFuseRequest() accepts what is as long as it says, and only that", () => {
  const write = fc.record({
    payload: fc.nat({ max: 96 }),
    claimed: fc.option(anyWord, { nil: undefined }),
  });
  fc.assert(
    fc.property(write, ({ payload, claimed }) => {
      const bytes = FUSE_WRITE_PAYLOAD_BYTES + payload, at = 1;
      const words = new Uint32Array(at + Math.ceil(bytes / 4));
      words.set([bytes, FUSE_OPCODE.write], at);
      words[at + FUSE_IN_HEADER_BYTES / 4 + 4] = claimed ?? payload;
      const honest = claimed === undefined || claimed === payload;
      assert.equal(checkFuseRequest(words, at, bytes), honest ? 0 : EIO);
    }),
    runs,
  );
});

Deno.test("replies stay within the bytes that they say, whatever is asked", () => {
  const asked = fc.record({
    major: anyWord,
    minor: anyWord,
    maxReadaheadBytes: anyWord,
    flags: anyWord,
    flags2: anyWord,
  });
  const sizeBytes = fc.nat({ max: Number.MAX_SAFE_INTEGER });
  const reply = fc.oneof(
    asked.map((init) => (words: Uint32Array, at: number) =>
      encodeFuseInitReply(words, at, { asked: init, maxIoBytes: 1 << 20, maxBackground: 1 << 20 })
    ),
    fc.record({ sizeBytes, timeSeconds: anyWord, mode: anyWord })
      .map((attributes) => (words: Uint32Array, at: number) =>
        encodeFuseAttrReply(words, at, attributes)
      ),
    anyWord.map((flags) => (words: Uint32Array, at: number) =>
      encodeFuseOpenReply(words, at, flags)
    ),
    anyWord.map((written) => (words: Uint32Array, at: number) =>
      encodeFuseWriteReply(words, at, written)
    ),
    sizeBytes.map((size) => (words: Uint32Array, at: number) =>
      encodeFuseStatfsReply(words, at, size)
    ),
    fc.tuple(fc.nat({ max: 133 }), anyWord, anyWord)
      .map(([errno, low, high]) => (words: Uint32Array, at: number) =>
        encodeFuseOutHeader(words, at, 0, errno, low, high)
      ),
  );
  fc.assert(
    fc.property(reply, fc.nat({ max: 9 }), (encode, at) => {
      const words = new Uint32Array(WORDS).fill(CANARY);
      const bytes = encode(words, at);
      const end = at + bytes / 4;
      assert.ok(Number.isInteger(end) && end <= WORDS);
      const touched = (index: number) => words[index] !== CANARY;
      assert.ok(![...words.keys()].some((i) => (i < at || i >= end) && touched(i)));
    }),
    runs,
  );
});
