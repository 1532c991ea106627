/** What a volume's counter page says now, by name: see codec/counters.ts for the page. */
import { COUNTER, LATENCY_BUCKETS, LATENCY_FIRST, SIZE_BUCKETS, SIZE_FIRST } from "../codec/mod.ts";

export type { CounterName } from "../codec/mod.ts";
export { latencyBucketLimit } from "../codec/mod.ts";

/** One reading of a page. Values are read one after another, so they may be one request apart. */
export interface CounterPage {
  readonly size_bytes: number;
  readonly allocated_bytes: number;
  readonly in_flight: number;
  readonly dirty_bytes: number;
  readonly reads: number;
  readonly writes: number;
  readonly flushes: number;
  readonly trims: number;
  readonly write_zeroes: number;
  readonly read_bytes: number;
  readonly write_bytes: number;
  readonly trim_bytes: number;
  readonly errors: number;
  readonly sequential: number;
  readonly read_us: number;
  readonly write_us: number;
  readonly flush_us: number;
  readonly latency_us_max: number;
  readonly copied_bytes: number;
  readonly changed_bytes: number;
  /** Requests by latency, `[bucket]`, see `latencyBucketLimit`. */
  readonly latency: Float64Array;
  /** Requests by size, `[bucket]`. */
  readonly sizes: Float64Array;
}

/** Takes a copy of the page's values. */
export function readCounterPage(page: Float64Array): CounterPage {
  const at = (index: number) => page[index] ?? 0;
  return {
    size_bytes: at(COUNTER.sizeBytes),
    allocated_bytes: at(COUNTER.allocatedBytes),
    in_flight: at(COUNTER.inFlight),
    dirty_bytes: at(COUNTER.dirtyBytes),
    reads: at(COUNTER.reads),
    writes: at(COUNTER.writes),
    flushes: at(COUNTER.flushes),
    trims: at(COUNTER.trims),
    write_zeroes: at(COUNTER.writeZeroes),
    read_bytes: at(COUNTER.readBytes),
    write_bytes: at(COUNTER.writeBytes),
    trim_bytes: at(COUNTER.trimBytes),
    errors: at(COUNTER.errors),
    sequential: at(COUNTER.sequential),
    read_us: at(COUNTER.readMicros),
    write_us: at(COUNTER.writeMicros),
    flush_us: at(COUNTER.flushMicros),
    latency_us_max: at(COUNTER.latencyMaxMicros),
    copied_bytes: at(COUNTER.mirrorCopiedBytes),
    changed_bytes: at(COUNTER.mirrorChangedBytes),
    latency: page.slice(LATENCY_FIRST, LATENCY_FIRST + LATENCY_BUCKETS),
    sizes: page.slice(SIZE_FIRST, SIZE_FIRST + SIZE_BUCKETS),
  };
}
