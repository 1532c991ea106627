/**
 * Sessions that are fed with anything: negotiation and requests with fields of any value, whole ones with bytes
 * changed, and noise. Each must come to its end when its bytes do, and hurt no other.
 */
import assert from "node:assert/strict";
import fc from "fast-check";
import {
  encodeClientFlags,
  encodeContextQuery,
  encodeExportQuery,
  encodeExtendedRequest,
  encodeOption,
  encodeRequest,
  NBD_ALLOCATION,
  NBD_CMD,
  NBD_EXTENDED_REQUEST_BYTES,
  NBD_HANDSHAKE,
  NBD_OPTION,
  NBD_REQUEST_BYTES,
} from "../../../src/codec/mod.ts";
import { fuzzRuns } from "../../support/fuzz.ts";
import { RawNbd } from "../../support/nbd_raw.ts";
import { type Served, SERVED_BYTES, servedTest } from "../../support/nbd_served.ts";

/** A session without an end is a failure, not a test that hangs. */
const END_WITHIN_MS = 20_000;
/** The last bytes belong to a client that checks them; whatever the others write lands before. */
const KEPT_BYTES = 4096;

const u16 = fc.nat(0xffff), u32 = fc.nat(0xffffffff);
const noise = fc.uint8Array({ maxLength: 80 });
const name = fc.constantFrom("data", "", "nope", "data@3", "\u0000", "d".repeat(5000));
const style = fc.constantFrom(0, NBD_OPTION.structuredReply, NBD_OPTION.extendedHeaders);

const join = (parts: readonly Uint8Array[]) => Uint8Array.from(parts.flatMap((part) => [...part]));

const option = fc.oneof(
  fc.tuple(fc.oneof(fc.nat(12), u32), noise).map(([number, data]) => encodeOption(number, data)),
  fc.tuple(fc.constantFrom(6, 7), name, fc.array(u16, { maxLength: 4 })).map(
    ([number, exported, wanted]) =>
      encodeOption(number, encodeExportQuery({ name: exported, wanted })),
  ),
  fc.tuple(
    fc.constantFrom(9, 10),
    name,
    fc.array(fc.constantFrom(NBD_ALLOCATION, "base:", "base", "qemu:x", ""), { maxLength: 4 }),
  ).map(([number, exported, queries]) =>
    encodeOption(number, encodeContextQuery({ name: exported, queries }))
  ),
  fc.constantFrom(3, 5, 8, 11).map((number) => encodeOption(number, new Uint8Array())),
  noise,
);

/** A request whose fields are likely, or just numbers; what it writes stays off the kept bytes. */
const request = fc.record({
  type: fc.oneof({ weight: 9, arbitrary: fc.nat(8) }, u16),
  flags: fc.oneof({ weight: 3, arbitrary: fc.constant(0) }, fc.nat(63), u16),
  cookie: u32,
  at: fc.oneof(
    { weight: 5, arbitrary: fc.nat(SERVED_BYTES / 2) },
    fc.integer({ min: SERVED_BYTES - KEPT_BYTES, max: SERVED_BYTES * 2 }),
    fc.integer({ min: SERVED_BYTES, max: Number.MAX_SAFE_INTEGER }),
  ),
  length: fc.oneof(
    { weight: 6, arbitrary: fc.nat(3000) },
    fc.nat(SERVED_BYTES / 4),
    fc.integer({ min: SERVED_BYTES, max: 0xffffffff }),
  ),
  payload: fc.oneof(fc.constant(-1), fc.nat(3000)),
  fill: fc.nat(255),
}).map((fields) => {
  const changes = fields.type !== NBD_CMD.read && fields.type !== NBD_CMD.flush;
  const kept = fields.at < SERVED_BYTES && fields.at + fields.length > SERVED_BYTES - KEPT_BYTES;
  return changes && kept ? { ...fields, at: SERVED_BYTES } : fields;
});

const transmission = fc.tuple(style, fc.array(request, { maxLength: 8 })).map(
  ([chosen, requests]) => {
    const extended = chosen === NBD_OPTION.extendedHeaders;
    const encode = extended ? encodeExtendedRequest : encodeRequest;
    const headerBytes = extended ? NBD_EXTENDED_REQUEST_BYTES : NBD_REQUEST_BYTES;
    const sent = requests.map(({ type, flags, cookie, at, length, payload, fill }) => {
      // -1: as much as it says, within reason.
      const follows = type !== NBD_CMD.write
        ? 0
        : payload < 0
        ? Math.min(length, 100_000)
        : payload;
      const bytes = new Uint8Array(headerBytes + follows).fill(fill);
      encode(new DataView(bytes.buffer), 0, type, flags, 0, cookie, at, length);
      return bytes;
    });
    const contexts = encodeContextQuery({ name: "data", queries: [NBD_ALLOCATION] });
    return join([
      ...(chosen === 0 ? [] : [encodeOption(chosen, new Uint8Array())]),
      encodeOption(NBD_OPTION.setMetaContext, contexts),
      encodeOption(NBD_OPTION.go, encodeExportQuery({ name: "data", wanted: [] })),
      ...sent,
    ]);
  },
);

const greeting = encodeClientFlags(NBD_HANDSHAKE.fixedNewstyle | NBD_HANDSHAKE.noZeroes);
const negotiation = fc.array(option, { maxLength: 6 }).map(join);
const changes = fc.array(fc.tuple(fc.nat(400), fc.nat(255)), { maxLength: 3 });

/** What one session sends. Changed bytes come in negotiation only: a changed request could write anywhere. */
const conversation = fc.oneof(
  noise,
  fc.tuple(negotiation, changes).map(([bytes, changed]) => {
    const all = join([greeting, bytes]);
    for (const [at, value] of changed) if (at < all.length) all[at] = value;
    return all;
  }),
  fc.tuple(transmission, noise).map(([bytes, more]) => join([greeting, bytes, more])),
  fc.tuple(negotiation, transmission).map((parts) => join([greeting, ...parts])),
);

/** Sends all, says that there is no more, and waits for the server to end it. */
async function feed({ socket }: Served, bytes: Uint8Array): Promise<void> {
  using raw = await RawNbd.connect(socket);
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(new Error("the session does not end")), END_WITHIN_MS);
  const sending = (async () => {
    await raw.write(bytes);
    await raw.connection.closeWrite();
  })().catch(() => {});
  try {
    await Promise.race([raw.untilClosed(), late.promise]);
  } finally {
    clearTimeout(timer);
  }
  await sending;
}

servedTest("whatever a session is fed with, it ends, and others work on", async (served) => {
  using witness = await RawNbd.enter(served.socket, "data");
  const at = SERVED_BYTES - KEPT_BYTES, payload = new Uint8Array(KEPT_BYTES).fill(0xc3);
  assert.equal(await witness.ask({ type: NBD_CMD.write, at, payload }), 0);
  await fc.assert(
    fc.asyncProperty(conversation, (bytes) => feed(served, bytes)),
    { numRuns: fuzzRuns, endOnFailure: true },
  );
  for (const raw of [witness, await RawNbd.enter(served.socket, "data")]) {
    await raw.send({ type: NBD_CMD.read, at, length: KEPT_BYTES });
    assert.equal((await raw.reply()).error, 0);
    assert.deepEqual(await raw.read(KEPT_BYTES), payload);
    raw[Symbol.dispose]();
  }
});
