import { deepEqual, equal, throws } from "node:assert/strict";
import fc from "fast-check";
import {
  decodeIntentLog,
  encodeIntentBlock,
  INTENT_LOG_BYTES,
  INTENT_RUNS_MAX,
  intentBlockAt,
  type IntentRecord,
} from "../../../src/codec/mod.ts";

const SECTOR_BYTES = 512, BLOCK_BYTES = 4096;

function record(sequence: bigint, runs: IntentRecord["runs"] = []): IntentRecord {
  return { sequence, region_bytes: 4_194_304, regions: 5000, runs };
}

/** Alternating regions: as many runs as there are. */
function scattered(count: number, first = 0): IntentRecord["runs"] {
  return Array.from({ length: count }, (_, i) => ({ first: first + 2 * i, count: 1 }));
}

/** A file into which these blocks were written, one after the other. */
function fileOf(...records: IntentRecord[]): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(INTENT_LOG_BYTES);
  for (const one of records) bytes.set(encodeIntentBlock(one), intentBlockAt(one.sequence));
  return bytes;
}

const before = record(7n, [{ first: 1, count: 2 }]);
const last = record(8n, scattered(130));

Deno.test("encodeIntentBlock() writes these bytes", () => {
  const block = encodeIntentBlock(record(0x0102030405n, [{ first: 3, count: 2 }]));
  equal(block.length, BLOCK_BYTES);
  // By hand from the layout; the CRC is zlib's, as computed by Python's binascii.crc32.
  equal(
    block.subarray(0, 40).toHex(),
    "504d4c4701000000" + "0504030201000000" + "0000400088130000" + "01000000" + "3204b404" +
      "0300000002000000",
  );
  equal(block.subarray(40, SECTOR_BYTES).every((byte) => byte === 0), true);
  equal(block.subarray(SECTOR_BYTES, SECTOR_BYTES + 8).toHex(), "504d4c4701000100");
});

Deno.test("decodeIntentLog() reads the later of two blocks, whichever place it has", () => {
  deepEqual(decodeIntentLog(fileOf(before, last)), { last, next_sequence: 9n });
  const next = record(9n, scattered(INTENT_RUNS_MAX));
  deepEqual(decodeIntentLog(fileOf(before, last, next))?.last, next);
  throws(() => encodeIntentBlock(record(9n, scattered(INTENT_RUNS_MAX + 1))), /no room/);
});

Deno.test("decodeIntentLog() reads nothing of a file of any other length", () => {
  const bytes = fileOf(before, last);
  for (let length = 0; length < bytes.length; length++) {
    equal(decodeIntentLog(bytes.subarray(0, length)), undefined, `${length} bytes`);
  }
  equal(decodeIntentLog(new Uint8Array(INTENT_LOG_BYTES + 1)), undefined);
  equal(decodeIntentLog(new Uint8Array(INTENT_LOG_BYTES)), undefined);
});

Deno.test("decodeIntentLog() knows every mixture of a block that was being written", () => {
  const next = record(9n, scattered(200, 1));
  const old = fileOf(before, last), whole = fileOf(before, last, next);
  const at = intentBlockAt(next.sequence);
  for (let written = 0; written < 256; written++) {
    const bytes = old.slice();
    for (let sector = 0; sector < 8; sector++) {
      const from = at + sector * SECTOR_BYTES;
      if (written & (1 << sector)) bytes.set(whole.subarray(from, from + SECTOR_BYTES), from);
    }
    const read = decodeIntentLog(bytes);
    deepEqual(read?.last, written === 255 ? next : last, `sectors ${written}`);
    // What is written now, torn in its turn, must not pass for what was torn before.
    equal(
      read?.next_sequence,
      written === 0 ? 9n : written === 255 ? 10n : 11n,
      `sectors ${written}`,
    );
  }
});

Deno.test("decodeIntentLog() knows a block that was written again after it had failed", () => {
  // 9 failed, whatever of it was written; 11 stands in the same place, torn over it.
  const next = record(11n, scattered(200, 1));
  const failed = fileOf(before, last, record(9n, scattered(100, 3)));
  const whole = fileOf(before, last, next), at = intentBlockAt(next.sequence);
  for (let written = 1; written < 256; written++) {
    const bytes = failed.slice();
    for (let sector = 0; sector < 8; sector++) {
      const from = at + sector * SECTOR_BYTES;
      if (written & (1 << sector)) bytes.set(whole.subarray(from, from + SECTOR_BYTES), from);
    }
    const read = decodeIntentLog(bytes);
    deepEqual(read?.last, written === 255 ? next : last, `sectors ${written}`);
    // What is written now, torn in its turn, must not pass for what was torn before.
    equal(read?.next_sequence, written === 255 ? 12n : 13n, `sectors ${written}`);
  }
});

Deno.test("decodeIntentLog() never takes the older block when the last one has rotted", () => {
  const bytes = fileOf(before, last), lastAt = intentBlockAt(last.sequence);
  for (let at = 0; at < bytes.length; at++) {
    for (let bit = 0; bit < 8; bit++) {
      bytes[at] = (bytes[at] as number) ^ (1 << bit);
      const inLast = at >= lastAt && at < lastAt + BLOCK_BYTES;
      const read = decodeIntentLog(bytes);
      if (inLast) equal(read, undefined, `byte ${at}`);
      else equal(read?.last.sequence, last.sequence, `byte ${at}`);
      bytes[at] = (bytes[at] as number) ^ (1 << bit);
    }
  }
});

Deno.test("decodeIntentLog() takes no bytes at random for a log", () => {
  const bytes = fc.uint8Array({ minLength: INTENT_LOG_BYTES, maxLength: INTENT_LOG_BYTES });
  fc.assert(fc.property(bytes, (file) => decodeIntentLog(file) === undefined), { numRuns: 100 });
});
