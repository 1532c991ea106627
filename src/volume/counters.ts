/** The volume's counter page: written here, on the data-plane thread alone. Hot path: no allocation. */
import {
  COUNTER,
  COUNTER_PAGE_BYTES,
  LATENCY_BUCKETS,
  LATENCY_FIRST,
  latencyBucket,
  latencyQuantile,
  SIZE_FIRST,
  sizeBucket,
} from "../codec/mod.ts";
import { OPERATION } from "../backend/mod.ts";

export class Counters {
  readonly page: SharedArrayBuffer = new SharedArrayBuffer(COUNTER_PAGE_BYTES);
  readonly values: Float64Array = new Float64Array(this.page);
  #nextAt = -1;
  #windowMax = 0;

  add(counter: number, amount: number): void {
    this.values[counter] = (this.values[counter] as number) + amount;
  }

  set(counter: number, value: number): void {
    this.values[counter] = value;
  }

  /** One request is complete. */
  record(code: number, at: number, length: number, micros: number, errno: number): void {
    const values = this.values;
    if (errno !== 0) this.add(COUNTER.errors, 1);
    switch (code) {
      case OPERATION.read:
        this.add(COUNTER.reads, 1);
        this.add(COUNTER.readBytes, length);
        this.add(COUNTER.readMicros, micros);
        break;
      case OPERATION.write:
        this.add(COUNTER.writes, 1);
        this.add(COUNTER.writeBytes, length);
        this.add(COUNTER.writeMicros, micros);
        break;
      case OPERATION.flush:
        this.add(COUNTER.flushes, 1);
        this.add(COUNTER.flushMicros, micros);
        break;
      case OPERATION.trim:
        this.add(COUNTER.trims, 1);
        this.add(COUNTER.trimBytes, length);
        break;
      default:
        this.add(COUNTER.writeZeroes, 1);
    }
    if (code <= OPERATION.write) {
      if (at === this.#nextAt) this.add(COUNTER.sequential, 1);
      this.#nextAt = at + length;
      this.add(SIZE_FIRST + sizeBucket(length), 1);
    }
    this.add(LATENCY_FIRST + latencyBucket(micros), 1);
    if (micros > (values[COUNTER.latencyMaxMicros] as number)) {
      values[COUNTER.latencyMaxMicros] = micros;
    }
    if (micros > this.#windowMax) this.#windowMax = micros;
  }

  /** How a mirror stands: what its target lacks, what was copied, what the application changed meanwhile. */
  setMirror(bytes: { dirty: number; copied: number; changed: number }): void {
    this.set(COUNTER.dirtyBytes, bytes.dirty);
    this.set(COUNTER.mirrorCopiedBytes, bytes.copied);
    this.set(COUNTER.mirrorChangedBytes, bytes.changed);
  }

  /** What can rise and fall besides: bytes that the store has allocated, requests in flight. */
  setLevels(levels: { allocatedBytes: number; inFlight: number }): void {
    this.set(COUNTER.allocatedBytes, levels.allocatedBytes);
    this.set(COUNTER.inFlight, levels.inFlight);
  }

  /** Reads and writes that are complete so far. */
  get transfers(): number {
    return (this.values[COUNTER.reads] as number) + (this.values[COUNTER.writes] as number);
  }

  /** Bytes that the application wrote so far. */
  get writtenBytes(): number {
    return this.values[COUNTER.writeBytes] as number;
  }

  /** Microseconds that they took, all together. */
  get transferMicros(): number {
    const values = this.values;
    return (values[COUNTER.readMicros] as number) + (values[COUNTER.writeMicros] as number);
  }

  /** Requests that failed so far. */
  get errors(): number {
    return this.values[COUNTER.errors] as number;
  }

  /** A copy of the latency histogram, `[bucket]`. */
  latencySnapshot(): Float64Array {
    return this.values.slice(LATENCY_FIRST, LATENCY_FIRST + LATENCY_BUCKETS);
  }

  /** The quantile of what was recorded since a snapshot, microseconds; 0 when nothing was. */
  quantileSince(snapshot: Float64Array, quantile: number): number {
    const counts = this.latencySnapshot();
    for (let i = 0; i < counts.length; i++) {
      counts[i] = (counts[i] as number) - (snapshot[i] as number);
    }
    return latencyQuantile(counts, quantile);
  }

  /** The highest latency since `resetWindowMax`, microseconds. */
  get windowMax(): number {
    return this.#windowMax;
  }

  resetWindowMax(): void {
    this.#windowMax = 0;
  }
}
