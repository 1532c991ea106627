/** Golden bytes: captured between libnbd 1.14 (nbdinfo), QEMU 7.2 (qemu-io) and nbdkit 1.32.5. */
import assert from "node:assert/strict";
import {
  decodeClientFlags,
  decodeExportNameAnswer,
  decodeExportQuery,
  decodeGreeting,
  decodeInfo,
  decodeListEntry,
  decodeOptionHeader,
  decodeOptionReplyHeader,
  decodeRequest,
  decodeSimpleReply,
  encodeClientFlags,
  encodeExportNameAnswer,
  encodeExportQuery,
  encodeGreeting,
  encodeInfo,
  encodeListEntry,
  encodeOption,
  encodeOptionReply,
  encodeRequest,
  encodeSimpleReply,
  NBD_CMD,
  NBD_CMD_FLAG,
  NBD_HANDSHAKE,
  NBD_INFO,
  NBD_OPTION,
  NBD_REP,
  NBD_REQUEST_BYTES,
  NBD_SIMPLE_REPLY_BYTES,
  nbdErrorOf,
  type NbdInfo,
  type NbdRequest,
  type NbdSimpleReply,
} from "../../../src/codec/mod.ts";

const GOLDEN = {
  greeting: "4e42444d4147494349484156454f50540003",
  clientFlags: "00000003",
  go: "49484156454f5054000000070000000a00000002616200010003",
  list: "49484156454f50540000000300000000",
  infoReply: "0003e889045565a900000007000000030000000c000000000000001000000ded",
  ack: "0003e889045565a9000000070000000100000000",
  serverReply: "0003e889045565a900000003000000020000000400000000",
  read: "2560951300000000000055a30ba6d0b0000000000000100000000200",
  writeFua: "2560951300010001000055a30ba6d0b0000000000000020000000004",
  disconnect: "25609513000000020000000000000000000000000000000000000000",
  reply: "6744669800000000000055a30ba6d0b0",
} as const;

const hex = (text: string) =>
  Uint8Array.from(text.match(/../g) ?? [], (pair) => parseInt(pair, 16));
const both = NBD_HANDSHAKE.fixedNewstyle | NBD_HANDSHAKE.noZeroes;
const nothing = new Uint8Array();

Deno.test("negotiation is encoded as other implementations send it", () => {
  assert.deepEqual(encodeGreeting(both), hex(GOLDEN.greeting));
  assert.deepEqual(encodeClientFlags(both), hex(GOLDEN.clientFlags));
  const query = encodeExportQuery({ name: "ab", wanted: [NBD_INFO.blockSize] });
  assert.deepEqual(encodeOption(NBD_OPTION.go, query), hex(GOLDEN.go));
  assert.deepEqual(encodeOption(NBD_OPTION.list, nothing), hex(GOLDEN.list));
  const info = encodeInfo({ type: NBD_INFO.export, sizeBytes: 1 << 20, flags: 0x0ded });
  assert.deepEqual(encodeOptionReply(NBD_OPTION.go, NBD_REP.info, info), hex(GOLDEN.infoReply));
  assert.deepEqual(encodeOptionReply(NBD_OPTION.go, NBD_REP.ack, nothing), hex(GOLDEN.ack));
  const entry = encodeListEntry({ name: "", description: "" });
  assert.deepEqual(
    encodeOptionReply(NBD_OPTION.list, NBD_REP.server, entry),
    hex(GOLDEN.serverReply),
  );
});

Deno.test("negotiation of other implementations is decoded", () => {
  assert.equal(decodeGreeting(hex(GOLDEN.greeting)), both);
  assert.equal(decodeClientFlags(hex(GOLDEN.clientFlags)), both);
  const go = hex(GOLDEN.go);
  assert.deepEqual(decodeOptionHeader(go), { option: NBD_OPTION.go, length: 10 });
  assert.deepEqual(decodeExportQuery(go.subarray(16)), { name: "ab", wanted: [3] });
  const reply = hex(GOLDEN.infoReply);
  assert.deepEqual(decodeOptionReplyHeader(reply), { option: 7, type: NBD_REP.info, length: 12 });
  assert.deepEqual(decodeInfo(reply.subarray(20)), {
    type: NBD_INFO.export,
    sizeBytes: 1 << 20,
    flags: 0x0ded,
  });
});

Deno.test("decodeInfo() gives back what encodeInfo() took", () => {
  const infos: NbdInfo[] = [
    { type: NBD_INFO.export, sizeBytes: 2 ** 52 + 4096, flags: 0x16d },
    { type: NBD_INFO.name, text: "data" },
    { type: NBD_INFO.description, text: "größer" },
    { type: NBD_INFO.blockSize, minimum: 1, preferred: 4096, maximum: 1 << 20 },
  ];
  for (const info of infos) assert.deepEqual(decodeInfo(encodeInfo(info)), info);
  assert.equal(decodeInfo(Uint8Array.of(0, 9, 1, 2)), undefined, "unknown types are skipped");
});

Deno.test("the answer to EXPORT_NAME ends in zeroes unless both sides left them out", () => {
  const answer = { sizeBytes: 5 * 2 ** 32, flags: 0x6d };
  assert.equal(encodeExportNameAnswer({ ...answer, padded: true }).length, 134);
  const short = encodeExportNameAnswer({ ...answer, padded: false });
  assert.equal(short.length, 10);
  assert.deepEqual(decodeExportNameAnswer(short), answer);
  const entry = { name: "data", description: "on store far" };
  assert.deepEqual(decodeListEntry(encodeListEntry(entry)), entry);
});

Deno.test("decoders of negotiation survive truncation at every length", () => {
  const cases: [string, Uint8Array, (bytes: Uint8Array) => unknown][] = [
    ["greeting", hex(GOLDEN.greeting), decodeGreeting],
    ["client flags", hex(GOLDEN.clientFlags), decodeClientFlags],
    ["option", hex(GOLDEN.list), decodeOptionHeader],
    ["query", hex(GOLDEN.go).subarray(16), decodeExportQuery],
    ["reply", hex(GOLDEN.ack), decodeOptionReplyHeader],
    ["info", hex(GOLDEN.infoReply).subarray(20), decodeInfo],
    [
      "export name",
      encodeExportNameAnswer({ sizeBytes: 1, flags: 1, padded: false }),
      (bytes) => decodeExportNameAnswer(bytes),
    ],
  ];
  for (const [what, bytes, decode] of cases) {
    assert.notEqual(decode(bytes), undefined, what);
    for (let length = 0; length < bytes.length; length++) {
      assert.equal(decode(bytes.subarray(0, length)), undefined, `${what} cut to ${length}`);
    }
  }
});

Deno.test("decoders of negotiation refuse wrong magic numbers and lying lengths", () => {
  for (const at of [0, 8]) {
    const bytes = hex(GOLDEN.greeting);
    bytes[at] = 0;
    assert.equal(decodeGreeting(bytes), undefined);
  }
  assert.equal(decodeOptionHeader(hex(GOLDEN.ack)), undefined);
  assert.equal(decodeOptionReplyHeader(hex(GOLDEN.go)), undefined);
  const lying = [
    "ffffffff616200010003",
    "00000003616200010003",
    "00000002616200020003",
    "00000002616200000003",
    "00000002ffff00010003",
  ];
  for (const text of lying) assert.equal(decodeExportQuery(hex(text)), undefined, text);
  assert.equal(decodeListEntry(hex("000000056162")), undefined);
});

Deno.test("requests and replies are those of other implementations", () => {
  const bytes = new Uint8Array(64), view = new DataView(bytes.buffer);
  const request: NbdRequest = { flags: 0, type: 0, cookieHigh: 0, cookieLow: 0, at: 0, length: 0 };
  const cookie = { cookieHigh: 0x55a3, cookieLow: 0x0ba6d0b0 };
  const cases: [string, NbdRequest][] = [
    [GOLDEN.read, { ...cookie, type: NBD_CMD.read, flags: 0, at: 4096, length: 512 }],
    [GOLDEN.writeFua, {
      ...cookie,
      type: NBD_CMD.write,
      flags: NBD_CMD_FLAG.fua,
      at: 512,
      length: 4,
    }],
    [GOLDEN.disconnect, {
      cookieHigh: 0,
      cookieLow: 0,
      type: NBD_CMD.disconnect,
      flags: 0,
      at: 0,
      length: 0,
    }],
  ];
  for (const [golden, expected] of cases) {
    bytes.set(hex(golden), 8);
    assert.ok(decodeRequest(view, 8, request));
    assert.deepEqual(request, expected);
    const { type, flags, cookieHigh, cookieLow, at, length } = expected;
    bytes.fill(0xee);
    encodeRequest(view, 4, type, flags, cookieHigh, cookieLow, at, length);
    assert.deepEqual(bytes.slice(4, 4 + NBD_REQUEST_BYTES), hex(golden));
  }
  const reply: NbdSimpleReply = { error: 0, cookieHigh: 0, cookieLow: 0 };
  bytes.set(hex(GOLDEN.reply), 3);
  assert.ok(decodeSimpleReply(view, 3, reply));
  assert.deepEqual(reply, { error: 0, ...cookie });
  encodeSimpleReply(view, 20, 0, cookie.cookieHigh, cookie.cookieLow);
  assert.deepEqual(bytes.slice(20, 20 + NBD_SIMPLE_REPLY_BYTES), hex(GOLDEN.reply));
  bytes[3] = 0;
  assert.equal(decodeSimpleReply(view, 3, reply), false);
  bytes.set(hex(GOLDEN.reply), 8);
  assert.equal(decodeRequest(view, 8, request), false);
});

Deno.test("requests carry offsets up to 2^53", () => {
  const view = new DataView(new ArrayBuffer(NBD_REQUEST_BYTES));
  const request: NbdRequest = { flags: 0, type: 0, cookieHigh: 0, cookieLow: 0, at: 0, length: 0 };
  for (const at of [0, 2 ** 32 - 1, 2 ** 32, 2 ** 40 + 512, Number.MAX_SAFE_INTEGER]) {
    encodeRequest(view, 0, NBD_CMD.read, 0, 0xffffffff, 0xfffffffe, at, 0xffffffff);
    assert.ok(decodeRequest(view, 0, request));
    assert.equal(request.at, at);
    assert.equal(request.length, 0xffffffff);
    assert.deepEqual([request.cookieHigh, request.cookieLow], [0xffffffff, 0xfffffffe]);
  }
});

Deno.test("nbdErrorOf() keeps what the protocol knows and finds kin for the rest", () => {
  for (const known of [0, 1, 5, 12, 22, 28, 75, 95, 108]) assert.equal(nbdErrorOf(known), known);
  assert.equal(nbdErrorOf(30), 1);
  assert.equal(nbdErrorOf(122), 28);
  assert.equal(nbdErrorOf(110), 5);
});
