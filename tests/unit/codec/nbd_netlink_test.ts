/** What the kernel's NBD client is told: laid out by hand from nbd-netlink.h, and there and back. */
import { deepEqual, equal } from "node:assert/strict";
import fc from "fast-check";
import {
  decodeAttributes,
  decodeNbdConfig,
  decodeNbdStatus,
  encodeAttributes,
  encodeNbdConfig,
  encodeNbdStatus,
} from "../../../src/codec/mod.ts";

const CONNECT = [
  "0c000200" + "0000000400000000", // 64 MiB
  "0c000300" + "0010000000000000", // blocks of 4096
  "0c000400" + "0000000000000000", // no time limit
  "0c000500" + "6d01000000000000", // the server's flags
  "0c000800" + "8051010000000000", // a day without a connection
  "0c000a00" + "70736d613a2f7600", // the backend psma:/v
  "10000780" + "0c000180" + "08000100" + "0b000000", // sockets: an item: descriptor 11
];

Deno.test("encodeNbdConfig() lays a connect out as the header has it", () => {
  const attributes = encodeNbdConfig({
    sizeBytes: 64 << 20,
    blockBytes: 4096,
    timeout_s: 0,
    serverFlags: 0x16d,
    deadConnectionTimeout_s: 86_400,
    backend: "psma:/v",
    sockets: [11],
  });
  equal(encodeAttributes(attributes).toHex(), CONNECT.join(""));
});

Deno.test("decodeNbdConfig() reads the kernel's answer to a connect: the index alone", () => {
  deepEqual(decodeNbdConfig(decodeAttributes(Uint8Array.fromHex("0800010003000000")) ?? []), {
    index: 3,
  });
});

Deno.test("decodeNbdStatus() reads devices as the kernel nests them, without the nested flag", () => {
  const item = (index: string, connected: string) =>
    "14000100" + "08000100" + index + "05000200" + connected + "000000";
  const list = "2c000900" + item("00000000", "01") + item("02000000", "00");
  deepEqual(decodeNbdStatus(decodeAttributes(Uint8Array.fromHex(list)) ?? []), [
    { index: 0, connected: true },
    { index: 2, connected: false },
  ]);
});

const u32 = fc.integer({ min: 0, max: 2 ** 32 - 1 });
const size = fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER });

Deno.test("configurations come back as they were", () => {
  const config = fc.record({
    index: u32,
    sizeBytes: size,
    blockBytes: u32,
    timeout_s: u32,
    serverFlags: u32,
    deadConnectionTimeout_s: u32,
    sockets: fc.array(u32, { maxLength: 4 }),
    backend: fc.stringMatching(/^[ -~]*$/),
  }, { requiredKeys: [] });
  fc.assert(fc.property(config, (wanted) => {
    const bytes = encodeAttributes(encodeNbdConfig(wanted));
    deepEqual(decodeNbdConfig(decodeAttributes(bytes) ?? []), { ...wanted });
  }));
});

Deno.test("statuses come back as they were", () => {
  const status = fc.array(fc.record({ index: u32, connected: fc.boolean() }), { maxLength: 16 });
  fc.assert(fc.property(status, (wanted) => {
    const bytes = encodeAttributes(encodeNbdStatus(wanted));
    deepEqual(decodeNbdStatus(decodeAttributes(bytes) ?? []), wanted);
  }));
});
