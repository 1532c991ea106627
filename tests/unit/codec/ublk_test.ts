import { deepStrictEqual, equal, ok, throws } from "node:assert/strict";
import fc from "fast-check";
import {
  decodeUblkControl,
  decodeUblkDevice,
  decodeUblkParameters,
  encodeUblkControl,
  encodeUblkDevice,
  encodeUblkParameters,
  UBLK_ANY_DEVICE,
  UBLK_CONTROL,
  UBLK_CONTROL_BYTES,
  UBLK_DEPTH_MAX,
  UBLK_DEVICE_BYTES,
  UBLK_FEATURE,
  UBLK_IO,
  UBLK_OPERATION,
  UBLK_OPERATION_FLAG,
  UBLK_PARAMETERS_BYTES,
  UBLK_STATE,
  ublkCopyOffset,
  ublkDescriptorsBytes,
  type UblkDevice,
  ublkLength,
  ublkOperation,
  ublkOperationFlags,
  type UblkParameters,
  ublkStart,
} from "../../../src/codec/mod.ts";
import { fuzzRuns } from "../../support/fuzz.ts";

/**
 * What Linux 6.12.95 answered to GET_DEV_INFO2 and GET_PARAMS for a started device of 5 TiB that was added
 * with the cookie 0x0123456789abcdef, four tags and requests of at most 1 MiB.
 */
const DEVICE = "01000400 01000000 00001000 00000000 9c000000 00000000 da000000 00000000 " +
  "efcdab89 67452301 00000000 00000000 00000000 00000000 00000000 00000000";
const PARAMETERS = "3c000000 07000000 0c000000 0c0c0c0c 00080000 00000000 00000080 02000000 " +
  "00000000 00000000 00000000 00100000 00000800 00000800 01000000";

/** Its descriptors: a read, fio writing 8 KiB at 4 TiB with O_DSYNC, a flush, fallocate's discard and zeroing. */
const READ = "00000000 08000000 00000000 00000000 00000000 00000000";
const WRITE = "01200000 10000000 00000000 02000000 00000000 00000000";
const FLUSH = "02000000 00000000 ffffffff ffffffff 00000000 00000000";
const DISCARD = "03000000 80000000 00080000 00000000 00000000 00000000";
const ZERO_RANGE = "05800000 00010000 00000000 02000000 00000000 00000000";

const STARTED: UblkDevice = {
  queues: 1,
  depth: 4,
  state: UBLK_STATE.live,
  maxIoBytes: 1 << 20,
  device: 0,
  pid: 156,
  flags: 0xdan,
  cookie: 0x0123456789abcdefn,
};

const ASKED: UblkParameters = {
  readOnly: false,
  logicalBlockBytes: 4096,
  physicalBlockBytes: 4096,
  maxIoBytes: 1 << 20,
  sizeBytes: 5 * 2 ** 40,
  discardGranularityBytes: 4096,
  maxDiscardBytes: 256 << 20,
};

Deno.test("a device's description is the kernel's, byte by byte", () => {
  deepStrictEqual(decodeUblkDevice(viewOf(DEVICE), 0), STARTED);
  const bytes = new Uint8Array(UBLK_DEVICE_BYTES).fill(0xee);
  encodeUblkDevice(new DataView(bytes.buffer), 0, STARTED);
  equal(bytes.toHex(), plain(DEVICE));
});

Deno.test("a device that has no server yet has the process id -1", () => {
  const view = new DataView(new ArrayBuffer(UBLK_DEVICE_BYTES));
  encodeUblkDevice(view, 0, { ...STARTED, pid: -1, device: UBLK_ANY_DEVICE });
  deepStrictEqual(decodeUblkDevice(view, 0), { ...STARTED, pid: -1, device: UBLK_ANY_DEVICE });
});

Deno.test("parameters are what the kernel gives back, but for the type of its own that it adds", () => {
  deepStrictEqual(decodeUblkParameters(viewOf(PARAMETERS), 0), ASKED);
  const bytes = new Uint8Array(UBLK_PARAMETERS_BYTES).fill(0xee);
  encodeUblkParameters(new DataView(bytes.buffer), 0, ASKED);
  // Bit 2 of the types: the device's number, which only the kernel sets.
  equal(bytes.toHex(), plain(PARAMETERS).replace("3c00000007", "3c00000003"));
});

Deno.test("a read-only device of 512-byte sectors says so, and keeps its page-sized physical blocks", () => {
  const asked = { ...ASKED, readOnly: true, logicalBlockBytes: 512, sizeBytes: 512 * 2049 };
  const view = new DataView(new ArrayBuffer(UBLK_PARAMETERS_BYTES));
  encodeUblkParameters(view, 0, asked);
  equal(view.getUint32(8, true) & 1, 1);
  equal(view.getUint8(12), 9);
  deepStrictEqual(decodeUblkParameters(view, 0), asked);
});

Deno.test("a control command is for the whole device, and says where its path ends", () => {
  const command = { device: 7, address: 0x7fff12345000, length: 77, data: 2 ** 33, pathLength: 13 };
  const bytes = new Uint8Array(48 + UBLK_CONTROL_BYTES).fill(0xee);
  const view = new DataView(bytes.buffer);
  encodeUblkControl(view, 48, command);
  const expected = "07000000 ffff 4d00 00503412ff7f0000 0000000002000000 0d00 0000 00000000";
  equal(bytes.subarray(48).toHex(), plain(expected));
  deepStrictEqual(decodeUblkControl(view, 48), command);
  equal(view.getUint8(47), 0xee);
});

Deno.test("commands have the numbers of the ioctl encoding", () => {
  const encode = (direction: number, size: number, number: number) =>
    ((direction << 30) | (size << 16) | ("u".charCodeAt(0) << 8) | number) >>> 0;
  equal(UBLK_CONTROL.addDevice, encode(3, 32, 0x04));
  equal(UBLK_CONTROL.endRecovery, encode(3, 32, 0x11));
  equal(UBLK_CONTROL.getDeviceInfo, encode(2, 32, 0x12));
  equal(UBLK_CONTROL.getFeatures, encode(2, 32, 0x13));
  equal(UBLK_CONTROL.deleteDeviceLater, encode(2, 32, 0x14));
  equal(UBLK_CONTROL.updateSize, encode(3, 32, 0x15));
  equal(UBLK_IO.fetch, encode(3, 16, 0x20));
  equal(UBLK_IO.commitAndFetch, encode(3, 16, 0x21));
  equal(UBLK_FEATURE.updateSize, 1024n);
});

Deno.test("descriptors tell operation, flags, length and place of their own tag", () => {
  const words = wordsOf([READ, WRITE, FLUSH, DISCARD, ZERO_RANGE].join(" "));
  const seen = [0, 1, 2, 3, 4].map((tag) => [
    ublkOperation(words, tag),
    ublkOperationFlags(words, tag),
    ublkLength(words, tag),
  ]);
  deepStrictEqual(seen, [
    [UBLK_OPERATION.read, 0, 4096],
    [UBLK_OPERATION.write, UBLK_OPERATION_FLAG.fua, 8192],
    [UBLK_OPERATION.flush, 0, 0],
    [UBLK_OPERATION.discard, 0, 65536],
    [UBLK_OPERATION.writeZeroes, UBLK_OPERATION_FLAG.noUnmap, 131072],
  ]);
  deepStrictEqual([0, 1, 3, 4].map((tag) => ublkStart(words, tag)), [0, 2 ** 42, 2 ** 20, 2 ** 42]);
});

Deno.test("records that were cut off are refused at every length", () => {
  for (let length = 0; length < UBLK_DEVICE_BYTES; length++) {
    throws(() => decodeUblkDevice(new DataView(new ArrayBuffer(length)), 0), RangeError);
  }
  for (let length = 0; length < UBLK_PARAMETERS_BYTES; length++) {
    throws(() => decodeUblkParameters(new DataView(new ArrayBuffer(length)), 0), RangeError);
  }
  for (let length = 0; length < UBLK_CONTROL_BYTES; length++) {
    throws(() => decodeUblkControl(new DataView(new ArrayBuffer(length)), 0), RangeError);
  }
});

Deno.test("descriptors are mapped in whole pages", () => {
  equal(ublkDescriptorsBytes(1, 4096), 4096);
  equal(ublkDescriptorsBytes(170, 4096), 4096);
  equal(ublkDescriptorsBytes(171, 4096), 8192);
  equal(ublkDescriptorsBytes(64, 65536), 65536);
  equal(ublkDescriptorsBytes(UBLK_DEPTH_MAX, 4096), UBLK_DEPTH_MAX * 24);
});

Deno.test("every tag's data have a place of their own, 32 MiB apart, and every queue", () => {
  equal(ublkCopyOffset(0, 0), 0x80000000);
  equal(ublkCopyOffset(0, 1) - ublkCopyOffset(0, 0), 32 << 20);
  equal(ublkCopyOffset(1, 0) - ublkCopyOffset(0, 0), 2 ** 41);
  ok(ublkCopyOffset(0, UBLK_DEPTH_MAX - 1) < ublkCopyOffset(1, 0));
});

Deno.test("whatever a descriptor holds, its fields are in range and its neighbours are not read", () => {
  const word = fc.nat(0xffffffff), descriptor = fc.tuple(word, word, word, word, word, word);
  fc.assert(
    fc.property(descriptor, fc.nat(3), ([flags, sectors, low, high, ...address], tag) => {
      // The neighbours hold NaN, which no reader of this tag can miss.
      const neighbours = new Float64Array(24).fill(NaN);
      neighbours.set([flags, sectors, low, high, ...address], tag * 6);
      const words = neighbours as unknown as Uint32Array;
      equal(ublkOperation(words, tag), flags % 256);
      equal(ublkOperationFlags(words, tag) >>> 0, flags - flags % 256);
      equal(ublkLength(words, tag), sectors * 512);
      const start = ublkStart(words, tag), exact = (BigInt(high) << 32n | BigInt(low)) * 512n;
      ok(start >= 0 && (start > Number.MAX_SAFE_INTEGER || BigInt(start) === exact));
      equal(start > Number.MAX_SAFE_INTEGER, exact > BigInt(Number.MAX_SAFE_INTEGER));
    }),
    { numRuns: fuzzRuns },
  );
});

Deno.test("whatever a device's description or parameters are, they come back as they went", () => {
  const device = fc.record({
    queues: fc.nat(0xffff),
    depth: fc.nat(0xffff),
    state: fc.nat(0xffff),
    maxIoBytes: fc.nat(0xffffffff),
    device: fc.nat(0xffffffff),
    pid: fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }),
    flags: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
    cookie: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
  }, { noNullPrototype: true });
  const shift = fc.integer({ min: 9, max: 12 });
  const parameters = fc.record({
    readOnly: fc.boolean(),
    logicalBlockBytes: shift.map((bits) => 2 ** bits),
    physicalBlockBytes: shift.map((bits) => 2 ** bits),
    maxIoBytes: fc.nat(0xffff).map((sectors) => sectors * 512),
    sizeBytes: fc.nat(2 ** 40).map((sectors) => sectors * 512),
    discardGranularityBytes: fc.nat(0xffffffff),
    maxDiscardBytes: fc.nat(0xffffff).map((sectors) => sectors * 512),
  }, { noNullPrototype: true });
  const view = new DataView(new ArrayBuffer(200));
  fc.assert(
    fc.property(device, parameters, fc.nat(100), (info, asked, at) => {
      encodeUblkDevice(view, at, info);
      deepStrictEqual(decodeUblkDevice(view, at), info);
      encodeUblkParameters(view, at, asked);
      deepStrictEqual(decodeUblkParameters(view, at), asked);
    }),
    { numRuns: fuzzRuns },
  );
});

function plain(hex: string): string {
  return hex.replaceAll(" ", "");
}

function viewOf(hex: string): DataView {
  return new DataView(Uint8Array.fromHex(plain(hex)).buffer);
}

function wordsOf(hex: string): Uint32Array {
  return new Uint32Array(Uint8Array.fromHex(plain(hex)).buffer);
}
