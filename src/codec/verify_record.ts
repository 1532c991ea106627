/**
 * How a verify stands, on disk: one header line with format version and CRC-32 of the rest, then JSON. Replaced
 * atomically while the verify goes on, so that a restart goes on where it was, and kept as its result.
 */
import { crc32 } from "node:zlib";

const MAGIC = "PSMA-VERIFY 1";

/** Bytes that differed and should not have. */
export interface DifferingRange {
  readonly at: number;
  readonly length: number;
}

export interface VerifyRecord {
  /** Of the operation that asked for it. */
  readonly id: string;
  readonly side: "mirror" | "backup";
  /** The mirror's id, or the store's volume of the backup: of what this is a verify. */
  readonly of: string;
  readonly state: "running" | "stopped" | "done";
  readonly max_rate_bytes_per_s: number | null;
  /** RFC 3339. */
  readonly started_at: string;
  readonly ended_at: string | null;
  readonly total_bytes: number;
  /** Everything before it was looked at. */
  readonly done_bytes: number;
  /** Chunks before `done_bytes` in which somebody wrote: they are tried again at the end. */
  readonly later: readonly number[];
  /** Found equal, holes on both sides among them. */
  readonly equal_bytes: number;
  /** Dirty when it was their turn: known to lack what the source has. */
  readonly behind_bytes: number;
  /** Written all the time: nothing can be said. */
  readonly busy_bytes: number;
  /** Of a backup: had no digest to be compared with, and has one from now on. */
  readonly recorded_bytes: number;
  readonly mismatched_bytes: number;
  /** Merged, ascending; bounded, so that `mismatched_bytes` may be more. */
  readonly mismatches: readonly DifferingRange[];
}

/** The file's bytes. */
export function encodeVerifyRecord(record: VerifyRecord): Uint8Array {
  const body = JSON.stringify(record) + "\n";
  return new TextEncoder().encode(`${MAGIC} ${hex(crc32(body))}\n${body}`);
}

/** @returns undefined when the bytes are damaged or of another format: then there is no such verify. */
export function decodeVerifyRecord(bytes: Uint8Array): VerifyRecord | undefined {
  const text = new TextDecoder().decode(bytes);
  const split = text.indexOf("\n");
  const header = text.slice(0, Math.max(split, 0)), body = text.slice(split + 1);
  return header === `${MAGIC} ${hex(crc32(body))}` ? JSON.parse(body) as VerifyRecord : undefined;
}

function hex(value: number): string {
  return (value >>> 0).toString(16).padStart(8, "0");
}
