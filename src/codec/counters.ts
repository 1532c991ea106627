/**
 * The counter page: one SharedArrayBuffer of float64 per volume, written by the data-plane thread alone and
 * read by anyone. All values only rise, unless the name says otherwise; times are microseconds.
 * An aligned 8-byte store is not torn on x86-64 and aarch64.
 */

/** Index of each counter in the page. Levels (may fall): sizeBytes, allocatedBytes, inFlight, dirtyBytes. */
export const COUNTER = {
  sizeBytes: 0,
  allocatedBytes: 1,
  inFlight: 2,
  dirtyBytes: 3,
  reads: 4,
  writes: 5,
  flushes: 6,
  trims: 7,
  writeZeroes: 8,
  readBytes: 9,
  writeBytes: 10,
  trimBytes: 11,
  errors: 12,
  sequential: 13,
  readMicros: 14,
  writeMicros: 15,
  flushMicros: 16,
  latencyMaxMicros: 17,
  mirrorCopiedBytes: 18,
  mirrorChangedBytes: 19,
} as const;

export type CounterName = keyof typeof COUNTER;

/** Latency histogram: 8 buckets per octave of microseconds from 1 µs, after the counters. */
export const LATENCY_FIRST = 32;
export const LATENCY_BUCKETS = 8 * 27;
const LATENCY_MICROS_MAX = 2 ** 27;
/** Request-size histogram: bucket i counts sizes in [512 << i, 512 << (i + 1)), the last one open. */
export const SIZE_FIRST = LATENCY_FIRST + LATENCY_BUCKETS;
export const SIZE_BUCKETS = 16;
export const COUNTER_PAGE_BYTES = (SIZE_FIRST + SIZE_BUCKETS) * 8;

/** Bucket of a latency in microseconds. */
export function latencyBucket(micros: number): number {
  if (micros < 1) return 0;
  if (micros >= LATENCY_MICROS_MAX) return LATENCY_BUCKETS - 1;
  const octave = 31 - Math.clz32(micros);
  const bucket = octave * 8 + Math.floor((micros / (1 << octave) - 1) * 8);
  return bucket;
}

/** Upper bound, in microseconds, of a latency bucket. */
export function latencyBucketLimit(bucket: number): number {
  const octave = Math.floor(bucket / 8);
  return 2 ** octave * (1 + (bucket % 8 + 1) / 8);
}

/** Bucket of a request size in bytes. */
export function sizeBucket(bytes: number): number {
  const bucket = bytes < 1024 ? 0 : 22 - Math.clz32(bytes);
  return bucket < SIZE_BUCKETS ? bucket : SIZE_BUCKETS - 1;
}

/**
 * A quantile of a latency histogram, as the upper bound of its bucket (at most 12.5 % too high).
 * @param counts `[bucket]`. @param quantile in (0, 1]. @returns microseconds, 0 when empty.
 */
export function latencyQuantile(counts: ArrayLike<number>, quantile: number): number {
  let total = 0;
  for (let i = 0; i < counts.length; i++) total += counts[i] as number;
  if (total === 0) return 0;
  let seen = 0;
  for (let i = 0; i < counts.length; i++) {
    seen += counts[i] as number;
    if (seen >= quantile * total) return latencyBucketLimit(i);
  }
  return latencyBucketLimit(counts.length - 1);
}
