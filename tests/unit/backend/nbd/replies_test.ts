import assert from "node:assert/strict";
import { FRAMING } from "../../../../src/backend/nbd/offer.ts";
import { NbdReplies, WANTS } from "../../../../src/backend/nbd/replies.ts";
import { NbdRequests } from "../../../../src/backend/nbd/requests.ts";
import {
  encodeBlockStatus,
  encodeChunk,
  encodeChunkError,
  encodeDataOffset,
  encodeExtendedBlockStatus,
  encodeExtendedChunk,
  encodeHole,
  encodeSimpleReply,
  NBD_CHUNK,
  NBD_CMD,
} from "../../../../src/codec/mod.ts";
import { allocateMemory, copyMemory, unmapMemory } from "../../../../src/sys/mod.ts";

const EIO = 5, ENOSPC = 28, DONE = 1, CONTEXT = 7;
const READ = 1, WRITE = 2, AT = 2 ** 40;
const NOTHING = new Uint8Array();

type Told = [what: "reply", cookie: number, error: number] | [
  what: "extent",
  length: number,
  flags: number,
];

/** A reader with a read of `bytes` bytes, a write and a status request that are awaited. */
class Bench implements Disposable {
  readonly told: Told[] = [];
  readonly requests = new NbdRequests(8);
  readonly memory = allocateMemory(4096);
  readonly stage = allocateMemory(65_536);
  readonly replies: NbdReplies;

  constructor(readonly framing: number, bytes: number) {
    this.replies = new NbdReplies(this.requests, 0, {
      onReply: (cookie, error) => {
        this.requests.end(cookie);
        this.told.push(["reply", cookie, error]);
      },
      onExtent: (length, flags) => this.told.push(["extent", length, flags]),
    });
    const piece = { flags: 0, at: AT, payload: 0 };
    const { address } = this.memory;
    this.memory.bytes.fill(0xee);
    this.requests.begin(READ, 0, { ...piece, type: NBD_CMD.read, length: bytes }, address, 0);
    this.requests.begin(WRITE, 0, { ...piece, type: NBD_CMD.write, length: 512 }, address, 0);
    const status = { ...piece, type: NBD_CMD.blockStatus, length: 2 ** 31 };
    this.requests.begin(8, 0, status, 0, 0);
    this.replies.begin(framing, CONTEXT);
  }

  /** Takes bytes in as a socket would give them. @returns what it wants after the last. */
  take(bytes: Uint8Array): number {
    let wants: number = WANTS.more;
    for (let at = 0; at < bytes.length && wants !== WANTS.broken;) {
      const part = bytes.subarray(at);
      this.stage.bytes.set(part);
      if (wants === WANTS.straight) {
        const count = Math.min(part.length, this.replies.straightBytes);
        copyMemory(this.replies.straightAddress, this.stage.address, count);
        wants = this.replies.receivedStraight(count);
        at += count;
      } else {
        const to = this.replies.makeRoom(), count = Math.min(part.length, this.replies.room);
        copyMemory(to, this.stage.address, count);
        wants = this.replies.received(count);
        at += count;
      }
    }
    return this.#wants = wants;
  }

  #wants: number = WANTS.more;

  /** As `take`, in two parts. */
  takeInTwo(bytes: Uint8Array, cut: number): number {
    this.take(bytes.subarray(0, cut));
    if (this.#wants !== WANTS.straight) return this.take(bytes.subarray(cut));
    const rest = bytes.subarray(cut), count = Math.min(rest.length, this.replies.straightBytes);
    this.stage.bytes.set(rest);
    copyMemory(this.replies.straightAddress, this.stage.address, count);
    this.replies.receivedStraight(count);
    return this.take(rest.subarray(count));
  }

  [Symbol.dispose](): void {
    this.replies.release();
    unmapMemory(this.memory);
    unmapMemory(this.stage);
  }
}

function chunk(
  framing: number,
  type: number,
  flags: number,
  cookie: number,
  payload: Uint8Array,
): Uint8Array {
  const header = framing === FRAMING.extended ? 32 : 20;
  const bytes = new Uint8Array(header + payload.length), view = new DataView(bytes.buffer);
  if (framing === FRAMING.extended) {
    encodeExtendedChunk(view, 0, type, flags, 1, cookie, AT, payload.length);
  } else encodeChunk(view, 0, type, flags, 1, cookie, payload.length);
  bytes.set(payload, header);
  return bytes;
}

function data(at: number, bytes: number, fill: number): Uint8Array {
  const payload = new Uint8Array(8 + bytes).fill(fill);
  encodeDataOffset(new DataView(payload.buffer), 0, at);
  return payload;
}

function hole(at: number, bytes: number): Uint8Array {
  const payload = new Uint8Array(12);
  encodeHole(new DataView(payload.buffer), 0, at, bytes);
  return payload;
}

function failure(error: number, message: string): Uint8Array {
  const payload = new Uint8Array(100);
  const text = new TextEncoder().encode(message);
  return payload.slice(0, encodeChunkError(new DataView(payload.buffer), 0, error, text));
}

function simple(error: number, cookie: number, payload = 0): Uint8Array {
  const bytes = new Uint8Array(16 + payload).fill(0x33, 16);
  encodeSimpleReply(new DataView(bytes.buffer), 0, error, 1, cookie);
  return bytes;
}

const join = (...parts: readonly Uint8Array[]) => {
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
};

for (const [name, framing] of Object.entries(FRAMING).filter(([name]) => name !== "simple")) {
  Deno.test(`${name} replies are read wherever the stream is cut, chunks out of order and interleaved`, () => {
    const status = framing === FRAMING.extended
      ? chunk(
        framing,
        NBD_CHUNK.blockStatusExtended,
        DONE,
        8,
        encodeExtendedBlockStatus({
          contextId: CONTEXT,
          extents: [{ length: 2 ** 35, flags: 3 }, { length: 512, flags: 0 }],
        }),
      )
      : chunk(
        framing,
        NBD_CHUNK.blockStatus,
        DONE,
        8,
        encodeBlockStatus({
          contextId: CONTEXT,
          extents: [{ length: 2 ** 31, flags: 3 }, { length: 512, flags: 0 }],
        }),
      );
    const stream = join(
      chunk(framing, NBD_CHUNK.offsetData, 0, READ, data(AT + 60, 40, 0x22)),
      status,
      chunk(framing, NBD_CHUNK.offsetHole, 0, READ, hole(AT + 20, 40)),
      chunk(framing, NBD_CHUNK.none, DONE, WRITE, new Uint8Array()),
      chunk(framing, NBD_CHUNK.offsetData, DONE, READ, data(AT, 20, 0x11)),
    );
    const long = framing === FRAMING.extended ? 2 ** 35 : 2 ** 31;
    for (let cut = 0; cut <= stream.length; cut++) {
      using bench = new Bench(framing, 100);
      assert.equal(bench.takeInTwo(stream, cut), WANTS.more, `cut at ${cut}`);
      assert.deepEqual(bench.told, [
        ["extent", long, 3],
        ["extent", 512, 0],
        ["reply", 8, 0],
        ["reply", WRITE, 0],
        ["reply", READ, 0],
      ], `cut at ${cut}`);
      const expected = new Uint8Array(101).fill(0x11, 0, 20).fill(0x22, 60, 100).fill(0xee, 100);
      assert.deepEqual(bench.memory.bytes.slice(0, 101), expected, `cut at ${cut}`);
      assert.equal(bench.requests.awaited, 0);
    }
  });

  Deno.test(`${name} replies: the first error of several counts, after the last chunk`, () => {
    using bench = new Bench(framing, 100);
    bench.take(join(
      chunk(framing, NBD_CHUNK.offsetData, 0, READ, data(AT, 20, 1)),
      chunk(framing, NBD_CHUNK.error, 0, READ, failure(ENOSPC, "no room")),
      // An error of a kind that was invented later begins like all others.
      chunk(framing, 0x8077, 0, READ, join(failure(EIO, "bad"), new Uint8Array(9))),
    ));
    assert.deepEqual(bench.told, []);
    bench.take(chunk(framing, NBD_CHUNK.none, DONE, READ, new Uint8Array()));
    assert.deepEqual(bench.told, [["reply", READ, ENOSPC]]);
  });

  Deno.test(`${name} replies: extents of another context are left alone`, () => {
    using bench = new Bench(framing, 100);
    const other = { contextId: CONTEXT + 1, extents: [{ length: 512, flags: 0 }] };
    const [type, payload] = framing === FRAMING.extended
      ? [NBD_CHUNK.blockStatusExtended, encodeExtendedBlockStatus(other)]
      : [NBD_CHUNK.blockStatus, encodeBlockStatus(other)];
    bench.take(chunk(framing, type, DONE, 8, payload));
    assert.deepEqual(bench.told, [["reply", 8, 0]]);
  });

  Deno.test(`${name} replies that break the protocol end the connection`, () => {
    const c = (type: number, flags: number, cookie: number, payload: Uint8Array = NOTHING) =>
      chunk(framing, type, flags, cookie, payload);
    const bad: Record<string, Uint8Array> = {
      "a wrong magic number": new Uint8Array(32),
      "an answer to nothing": c(NBD_CHUNK.none, DONE, 5),
      "a cookie out of range": c(NBD_CHUNK.none, DONE, 0xffffffff),
      "bytes missing": c(NBD_CHUNK.offsetData, DONE, READ, data(AT, 99, 1)),
      "none at all": c(NBD_CHUNK.none, DONE, READ),
      "data before the range": c(NBD_CHUNK.offsetData, 0, READ, data(AT - 1, 20, 1)),
      "data beyond the range": c(NBD_CHUNK.offsetData, 0, READ, data(AT + 81, 20, 1)),
      "data for a write": c(NBD_CHUNK.offsetData, 0, WRITE, data(AT, 20, 1)),
      "no data in a data chunk": c(NBD_CHUNK.offsetData, 0, READ, data(AT, 0, 1)),
      "a hole beyond the range": c(NBD_CHUNK.offsetHole, 0, READ, hole(AT, 101)),
      "an empty hole": c(NBD_CHUNK.offsetHole, 0, READ, hole(AT, 0)),
      "a hole's payload cut short": c(NBD_CHUNK.offsetHole, 0, READ, new Uint8Array(11)),
      "a payload where there is none": c(NBD_CHUNK.none, DONE, WRITE, new Uint8Array(1)),
      "an unknown kind of content": c(77, 0, READ, new Uint8Array(8)),
      "an error that is none": c(NBD_CHUNK.error, DONE, READ, failure(0, "")),
      "an error cut short": c(NBD_CHUNK.error, DONE, READ, new Uint8Array(5)),
      "an endless error": c(NBD_CHUNK.error, DONE, READ, new Uint8Array(9000)),
      "extents for a read": c(
        NBD_CHUNK.blockStatus,
        DONE,
        READ,
        encodeBlockStatus({ contextId: CONTEXT, extents: [{ length: 1, flags: 0 }] }),
      ),
      "part of an extent": c(NBD_CHUNK.blockStatus, DONE, 8, new Uint8Array(4 + 9)),
      "no extent": c(NBD_CHUNK.blockStatus, DONE, 8, new Uint8Array(4)),
      "an empty extent": c(NBD_CHUNK.blockStatus, DONE, 8, new Uint8Array(4 + 8)),
      "a read without chunks": simple(0, READ, 100),
    };
    for (const [what, stream] of Object.entries(bad)) {
      using bench = new Bench(framing, 100);
      assert.equal(bench.take(stream), WANTS.broken, what);
      assert.notEqual(bench.replies.reason, "", what);
    }
  });
}

Deno.test("simple replies are read wherever the stream is cut", () => {
  const stream = join(simple(0, READ, 100), simple(EIO, WRITE));
  for (let cut = 0; cut <= stream.length; cut++) {
    using bench = new Bench(FRAMING.simple, 100);
    assert.equal(bench.takeInTwo(stream, cut), WANTS.more);
    assert.deepEqual(bench.told, [["reply", READ, 0], ["reply", WRITE, EIO]]);
    assert.ok(bench.memory.bytes.subarray(0, 100).every((byte) => byte === 0x33));
    assert.equal(bench.memory.bytes[100], 0xee);
  }
});

Deno.test("simple replies that break the protocol end the connection", () => {
  for (
    const stream of [
      new Uint8Array(16),
      simple(0, 5),
      chunk(FRAMING.structured, NBD_CHUNK.none, DONE, WRITE, new Uint8Array()),
    ]
  ) {
    using bench = new Bench(FRAMING.simple, 100);
    assert.equal(bench.take(stream), WANTS.broken);
  }
});

Deno.test("a reader that is stopped by what it tells reads on no further", () => {
  const stream = join(simple(0, WRITE), new Uint8Array(64));
  using bench = new Bench(FRAMING.simple, 100);
  const stop = bench.replies.stop.bind(bench.replies);
  bench.told.push = (...items) => {
    stop();
    return items.length;
  };
  assert.equal(bench.take(stream), WANTS.more);
});
