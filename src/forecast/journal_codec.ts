/**
 * Bytes of the sample journal (our own format; little-endian).
 *
 *     segment = header record*
 *     header  = "PSMJ" u16 version(1) u16 zero f64 first_seq u32 crc32(previous 16 bytes)
 *     record  = u32 length  u32 crc32(payload)  payload
 *     payload = f64 seq  u16 count  sample{count}
 *     sample  = u8 length, volume  u8 length, metric  f64 at_ms  f64 value
 *
 * `seq` numbers the record's first sample; samples are numbered one by one without gaps within a
 * record. A reader stops at the first record that is cut short or fails its check: what follows a torn
 * write was never acknowledged.
 */
import { crc32 } from "node:zlib";
import { isMetric, type Sample } from "./types.ts";

export interface NumberedSample extends Sample {
  readonly seq: number;
}

export interface DecodedSegment {
  readonly first_seq: number;
  readonly samples: readonly NumberedSample[];
  /** Bytes up to the end of the last good record; what follows is to be cut off. */
  readonly good_bytes: number;
}

export const SEGMENT_HEADER_BYTES = 20;
/** A record longer than this is damage, not data. */
const RECORD_BYTES_MAX = 1 << 20;

const MAGIC = 0x4a_4d_53_50; // "PSMJ" read as a little-endian u32
const VERSION = 1;
const RECORD_HEADER_BYTES = 8;
const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true });

export function encodeSegmentHeader(firstSeq: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(SEGMENT_HEADER_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, MAGIC, true);
  view.setUint16(4, VERSION, true);
  view.setFloat64(8, firstSeq, true);
  view.setUint32(16, crc32(bytes.subarray(0, 16)), true);
  return bytes;
}

/** One record for `samples` (at most 65,535, names up to 255 bytes), numbered from `seq`. */
export function encodeRecord(seq: number, samples: readonly Sample[]): Uint8Array<ArrayBuffer> {
  const names = samples.map((sample) => ({
    volume: encoder.encode(sample.volume),
    metric: encoder.encode(sample.metric),
  }));
  const payloadBytes = names.reduce((sum, n) => sum + 18 + n.volume.length + n.metric.length, 10);
  const bytes = new Uint8Array(RECORD_HEADER_BYTES + payloadBytes);
  const view = new DataView(bytes.buffer);
  view.setFloat64(8, seq, true);
  view.setUint16(16, samples.length, true);
  let at = 18;
  const putName = (name: Uint8Array) => {
    view.setUint8(at, name.length);
    bytes.set(name, at + 1);
    at += 1 + name.length;
  };
  samples.forEach((sample, index) => {
    const name = names[index];
    if (!name) return;
    putName(name.volume);
    putName(name.metric);
    view.setFloat64(at, sample.at_ms, true);
    view.setFloat64(at + 8, sample.value, true);
    at += 16;
  });
  view.setUint32(0, payloadBytes, true);
  view.setUint32(4, crc32(bytes.subarray(RECORD_HEADER_BYTES)), true);
  return bytes;
}

/** Reads a segment as far as it is sound. @returns undefined when the header itself is not. */
export function decodeSegment(bytes: Uint8Array): DecodedSegment | undefined {
  if (bytes.length < SEGMENT_HEADER_BYTES) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const sound = view.getUint32(0, true) === MAGIC && view.getUint16(4, true) === VERSION &&
    view.getUint32(16, true) === crc32(bytes.subarray(0, 16));
  if (!sound) return undefined;
  const samples: NumberedSample[] = [];
  let at = SEGMENT_HEADER_BYTES;
  while (at + RECORD_HEADER_BYTES <= bytes.length) {
    const length = view.getUint32(at, true);
    const start = at + RECORD_HEADER_BYTES;
    if (length > RECORD_BYTES_MAX || start + length > bytes.length) break;
    const payload = bytes.subarray(start, start + length);
    if (crc32(payload) !== view.getUint32(at + 4, true)) break;
    const record = decodePayload(payload);
    if (!record) break;
    for (const sample of record) samples.push(sample);
    at = start + length;
  }
  return { first_seq: view.getFloat64(8, true), samples, good_bytes: at };
}

/** A payload that passed its check but does not parse was not written by this version: undefined. */
function decodePayload(payload: Uint8Array): NumberedSample[] | undefined {
  if (payload.length < 10) return undefined;
  const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
  const seq = view.getFloat64(0, true);
  const count = view.getUint16(8, true);
  const samples: NumberedSample[] = [];
  let at = 10;
  const takeName = (): string => {
    const length = view.getUint8(at);
    const name = decoder.decode(payload.subarray(at + 1, at + 1 + length));
    at += 1 + length;
    return name;
  };
  try {
    for (let index = 0; index < count; index++) {
      const volume = takeName();
      const metric = takeName();
      const at_ms = view.getFloat64(at, true);
      const value = view.getFloat64(at + 8, true);
      at += 16;
      if (isMetric(metric)) samples.push({ seq: seq + index, volume, metric, at_ms, value });
    }
  } catch (error) {
    if (error instanceof RangeError || error instanceof TypeError) return undefined;
    throw error;
  }
  return at === payload.length ? samples : undefined;
}
