/**
 * /proc/diskstats: text to records. Linux Documentation/admin-guide/iostats.rst: one line a device, major,
 * minor and name, then 11 fields since 2.6, 15 since 4.18 (discards), 17 since 5.5 (flushes).
 *
 * Counts and sectors are unsigned long and do not wrap in practice; times are 32-bit milliseconds and do.
 */

const SECTOR_BYTES = 512;
const FIELDS_LEAST = 11;

/** One device's counters. All rise, except `in_flight`; fields that the kernel does not have are 0. */
export interface DiskStats {
  readonly device: string;
  readonly major: number;
  readonly minor: number;
  readonly reads: number;
  readonly read_bytes: number;
  readonly read_ms: number;
  readonly writes: number;
  readonly write_bytes: number;
  readonly write_ms: number;
  readonly in_flight: number;
  readonly busy_ms: number;
  /** Wraps at 2^32, like every `_ms`. */
  readonly weighted_ms: number;
  readonly discards: number;
  readonly discard_bytes: number;
  readonly flushes: number;
  readonly flush_ms: number;
}

/** @returns one record a well-formed line, in the kernel's order; lines cut short are left out. */
export function decodeDiskstats(text: string): DiskStats[] {
  return text.split("\n").map(decodeLine).filter((one) => one !== undefined);
}

function decodeLine(line: string): DiskStats | undefined {
  const [major, minor, device, ...fields] = line.trim().split(/\s+/);
  const values = fields.map(Number);
  if (device === undefined || values.length < FIELDS_LEAST) return undefined;
  if (values.some((value) => !Number.isFinite(value) || value < 0)) return undefined;
  const at = (field: number) => values[field - 1] ?? 0;
  return {
    device,
    major: Number(major),
    minor: Number(minor),
    reads: at(1),
    read_bytes: at(3) * SECTOR_BYTES,
    read_ms: at(4),
    writes: at(5),
    write_bytes: at(7) * SECTOR_BYTES,
    write_ms: at(8),
    in_flight: at(9),
    busy_ms: at(10),
    weighted_ms: at(11),
    discards: at(12),
    discard_bytes: at(14) * SECTOR_BYTES,
    flushes: at(16),
    flush_ms: at(17),
  };
}
