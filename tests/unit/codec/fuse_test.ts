import { deepStrictEqual, equal } from "node:assert/strict";
import {
  checkFuseRequest,
  decodeFuseInit,
  encodeFuseAttrReply,
  encodeFuseInitReply,
  encodeFuseOpenReply,
  encodeFuseOutHeader,
  encodeFuseResend,
  encodeFuseStatfsReply,
  encodeFuseWriteReply,
  FUSE_OPCODE,
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

/**
 * Requests as a Linux 6.18 kernel sent them, taken from /dev/fuse: its INIT, then dd reading 1 MiB at 9 GiB,
 * dd writing four bytes at 5 GiB with oflag=dsync, fallocate -p of 2 GiB there, truncate -s 4G.
 */
const INIT = "68000000 1a000000 02000000 00000000 00000000 00000000 00000000 00000000 00000000 " +
  "00000000 07000000 2d000000 00000200 fbffff73 fd050000" + "00".repeat(44);
const READ = "50000000 0f000000 0c000000 00000000 01000000 00000000 00000000 00000000 23560000 " +
  "00000000 01000000 00000000 00001040 02000000 00001000 02000000 a25f42db 7a2f4990 00800000 " +
  "00000000";
const WRITE = "54000000 10000000 14000000 00000000 01000000 00000000 00000000 00000000 25560000 " +
  "00000000 01000000 00000000 00000040 01000000 04000000 02000000 c41f9288 5b9a488c 02900000 " +
  "00000000 61626364";
const FALLOCATE =
  "48000000 2b000000 1e000000 00000000 01000000 00000000 00000000 00000000 27560000 " +
  "00000000 01000000 00000000 00000040 01000000 00000080 00000000 03000000 00000000";
const SETATTR =
  "80000000 04000000 28000000 00000000 01000000 00000000 00000000 00000000 28560000 " +
  "00000000 48020000 00000000 01000000 00000000 00000000 01000000 c41f9288 5b9a488c" +
  "00".repeat(56);

Deno.test("a READ tells its id, offset beyond 4 GiB and length", () => {
  const words = message(READ);
  equal(checkFuseRequest(words, 0, 80), 0);
  equal(fuseOpcode(words, 0), FUSE_OPCODE.read);
  equal(fuseUniqueLow(words, 0), 12);
  equal(fuseUniqueHigh(words, 0), 0);
  equal(fuseIoOffset(words, 0), 0x240100000);
  equal(fuseIoLength(words, 0), 1 << 20);
});

Deno.test("a WRITE tells how its file was opened, and must carry the payload that it announces", () => {
  const words = message(WRITE);
  equal(checkFuseRequest(words, 0, 84), 0);
  equal(fuseIoOffset(words, 0), 5 * 2 ** 30);
  equal(fuseIoLength(words, 0), 4);
  equal(fuseWriteOpenFlags(words, 0), 0o110002);
  words[14] = 5;
  equal(checkFuseRequest(words, 0, 84), 5);
});

Deno.test("a FALLOCATE tells range and mode", () => {
  const words = message(FALLOCATE);
  equal(checkFuseRequest(words, 0, 72), 0);
  equal(fuseIoOffset(words, 0), 5 * 2 ** 30);
  equal(fuseFallocateLength(words, 0), 2 ** 31);
  equal(fuseFallocateMode(words, 0), 3);
});

Deno.test("a SETATTR tells which attributes it sets, and the size", () => {
  const words = message(SETATTR);
  equal(checkFuseRequest(words, 0, 128), 0);
  words[3] = 0x80000000;
  equal(fuseUniqueHigh(words, 0), 0x80000000);
  equal(fuseSetattrValid(words, 0), 0x248);
  equal(fuseSetattrSize(words, 0), 2 ** 32);
});

Deno.test("no request passes when it is cut at any length", () => {
  for (const golden of [INIT, READ, WRITE, FALLOCATE, SETATTR]) {
    const whole = message(golden);
    for (let bytes = 0; bytes < whole.length * 4; bytes++) {
      const words = whole.slice();
      equal(checkFuseRequest(words, 0, bytes), -1, `cut at ${bytes}, header as it was`);
      words[0] = bytes;
      // INIT of kernels before 7.36 ends after its first flags.
      const short = golden === INIT && bytes >= 56;
      const expected = short ? 0 : bytes < 40 ? -1 : 5;
      equal(checkFuseRequest(words, 0, bytes), expected, `cut at ${bytes}, header says so`);
    }
  }
});

Deno.test("an unknown opcode without a body is a whole request", () => {
  const words = message(READ);
  words[0] = 40;
  for (const opcode of [52, 63, 64, 4096, 0xffffffff]) {
    words[1] = opcode;
    equal(checkFuseRequest(words, 0, 40), 0);
  }
});

Deno.test("INIT tells what the kernel can, in both lengths", () => {
  const words = message(INIT);
  const asked = decodeFuseInit(words, 0);
  deepStrictEqual(asked, {
    major: 7,
    minor: 45,
    maxReadaheadBytes: 131072,
    flags: 0x73fffffb,
    flags2: 0x5fd,
  });
  words[0] = 56;
  deepStrictEqual(decodeFuseInit(words, 0), { ...asked, flags2: 0 });
});

Deno.test("the answer to INIT offers no more than the kernel asked for", () => {
  const asked = decodeFuseInit(message(INIT), 0);
  const reply = { asked, maxIoBytes: 1 << 20, maxBackground: 128 };
  equal(
    encoded((words) => encodeFuseInitReply(words, 4, reply)),
    "07000000 28000000 00000200 21804040 80008000 00001000 01000000 00010000 80000000".replaceAll(
      " ",
      "",
    ) + "00".repeat(28),
  );
  const old = { ...asked, minor: 31, flags: 1, flags2: 0 };
  const shown = encoded((words) => encodeFuseInitReply(words, 4, { ...reply, asked: old }));
  equal(shown.slice(0, 32), "070000001f0000000000020001000000");
});

Deno.test("the answer to GETATTR holds for no time at all", () => {
  equal(
    encoded((words) =>
      encodeFuseAttrReply(words, 4, {
        sizeBytes: 0x240000200,
        timeSeconds: 0x65000000,
        mode: 0o100600,
      })
    ),
    "0000000000000000" + "0000000000000000" + "0100000000000000" + "0002004002000000" +
      "0100200100000000" + "0000006500000000".repeat(3) + "00".repeat(12) +
      "80810000" + "01000000" + "00".repeat(12) + "00100000" + "00000000",
  );
});

Deno.test("answers to OPEN, WRITE and STATFS are laid out as fuse.h says", () => {
  equal(
    encoded((words) => encodeFuseOpenReply(words, 4, 65)),
    "01000000000000004100000000000000",
  );
  equal(encoded((words) => encodeFuseWriteReply(words, 4, 4096)), "0010000000000000");
  equal(
    encoded((words) => encodeFuseStatfsReply(words, 4, (1 << 20) + 1)),
    "0101000000000000" + "00".repeat(16) + "0100000000000000" + "00".repeat(8) +
      "00100000" + "ff000000" + "00100000" + "00".repeat(28),
  );
});

Deno.test("a reply's header carries length, negative errno and the request's own id", () => {
  const words = new Uint32Array(6);
  equal(encodeFuseOutHeader(words, 1, 8, 28, 0x12345678, 0x9abcdef0), 24);
  equal(
    hexadecimal(words),
    "00000000" + "18000000" + "e4ffffff" + "78563412" + "f0debc9a" + "00000000",
  );
});

Deno.test("asking to send again is a header with the notice's code, unnegated, and no id", () => {
  equal(encodeFuseResend().toHex(), "10000000" + "07000000" + "0000000000000000");
});

function message(hex: string): Uint32Array {
  const digits = hex.replaceAll(" ", "");
  const bytes = Uint8Array.fromHex(digits);
  return new Uint32Array(bytes.buffer, 0, bytes.length / 4);
}

/** What was written, and that nothing else was: the memory around it is not zero before. */
function encoded(encode: (words: Uint32Array) => number): string {
  const words = new Uint32Array(64).fill(0xaaaaaaaa);
  const bytes = encode(words);
  equal(words[3], 0xaaaaaaaa);
  equal(words[4 + bytes / 4], 0xaaaaaaaa);
  return hexadecimal(words.subarray(4, 4 + bytes / 4));
}

function hexadecimal(words: Uint32Array): string {
  return new Uint8Array(words.buffer, words.byteOffset, words.byteLength).toHex();
}
