/** A journal that was cut or damaged anywhere gives back a true beginning of itself, never a wrong sample. */
import { deepEqual, equal, ok } from "node:assert/strict";
import {
  decodeSegment,
  encodeRecord,
  encodeSegmentHeader,
  SEGMENT_HEADER_BYTES,
} from "../../../src/forecast/journal_codec.ts";
import type { Sample } from "../../../src/forecast/types.ts";

const SAMPLES: Sample[] = [
  { volume: "data", metric: "used_bytes", at_ms: 1_700_000_000_000, value: 0.1 + 0.2 },
  { volume: "data", metric: "write_iops", at_ms: 1_700_000_000_250, value: 12 },
  { volume: "büro", metric: "inodes_used", at_ms: 1_700_000_000_500, value: 2 ** 53 },
];

const segment = concat([
  encodeSegmentHeader(7),
  encodeRecord(7, SAMPLES),
  encodeRecord(10, SAMPLES.slice(0, 1)),
]);
const whole = decodeSegment(segment)?.samples ?? [];

Deno.test("decodeSegment() gives back what was encoded, numbered", () => {
  deepEqual(whole.map((s) => s.seq), [7, 8, 9, 10]);
  deepEqual(
    whole.slice(0, 3).map(({ volume, metric, at_ms, value }) => ({ volume, metric, at_ms, value })),
    SAMPLES,
  );
  equal(decodeSegment(segment)?.good_bytes, segment.length);
});

Deno.test("a segment's header is these bytes", () => {
  const hex = [...encodeSegmentHeader(1)].map((b) => b.toString(16).padStart(2, "0")).join("");
  equal(hex.slice(0, 32), "50534d4a01000000" + "000000000000f03f");
});

Deno.test("decodeSegment() of a segment cut at any length is a beginning of it", () => {
  for (let length = 0; length < segment.length; length++) {
    const decoded = decodeSegment(segment.subarray(0, length));
    if (length < SEGMENT_HEADER_BYTES) equal(decoded, undefined);
    else {
      ok(decoded && decoded.good_bytes <= length);
      deepEqual(decoded.samples, whole.slice(0, decoded.samples.length));
      ok(decoded.samples.length < whole.length);
    }
  }
});

Deno.test("decodeSegment() of a segment with any one bit flipped never invents a sample", () => {
  for (let bit = 0; bit < segment.length * 8; bit++) {
    const damaged = segment.slice();
    damaged[bit >> 3] = (damaged[bit >> 3] ?? 0) ^ (1 << (bit & 7));
    const samples = decodeSegment(damaged)?.samples ?? [];
    ok(samples.length < whole.length, `bit ${bit} went unnoticed`);
    deepEqual(samples, whole.slice(0, samples.length));
  }
});

function concat(parts: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}
