/**
 * What one backend did, per kind of operation: how many, how many failed, bytes, and how long they took.
 * Written on the data-plane thread alone. Hot path: `record` allocates nothing.
 */
import { LATENCY_BUCKETS, latencyBucket, latencyQuantile } from "../codec/mod.ts";
import { OPERATION, type OperationMeter } from "./operations.ts";

/** Of one kind of operation, since the backend was opened. Latencies are at most 12.5 % too high. */
export interface OperationReport {
  readonly operation: string;
  readonly count: number;
  readonly errors: number;
  /** Bytes of those that succeeded. */
  readonly bytes: number;
  readonly latency_us: {
    readonly mean: number;
    readonly p50: number;
    readonly p99: number;
    readonly max: number;
  };
}

/** As users read them, `[code]`. */
const NAMES: readonly string[] = namesByCode({
  read: "read",
  write: "write",
  flush: "flush",
  trim: "trim",
  writeZeroes: "write_zeroes",
});
const COUNT = 0, ERRORS = 1, BYTES = 2, MICROS = 3, MICROS_MAX = 4, LATENCY = 5;
const FIELDS = LATENCY + LATENCY_BUCKETS;

export class BackendMeter implements OperationMeter {
  /** `[code][field]`. */
  readonly #values = new Float64Array(NAMES.length * FIELDS);

  /** One operation is complete. @param micros from its submission on. */
  record(code: number, length: number, micros: number, errno: number): void {
    const values = this.#values, at = code * FIELDS;
    values[at + COUNT] = (values[at + COUNT] as number) + 1;
    if (errno !== 0) values[at + ERRORS] = (values[at + ERRORS] as number) + 1;
    else values[at + BYTES] = (values[at + BYTES] as number) + length;
    values[at + MICROS] = (values[at + MICROS] as number) + micros;
    if (micros > (values[at + MICROS_MAX] as number)) values[at + MICROS_MAX] = micros;
    const bucket = at + LATENCY + latencyBucket(micros);
    values[bucket] = (values[bucket] as number) + 1;
  }

  /** Of every kind that there was any of. */
  report(): OperationReport[] {
    return NAMES.map((operation, code) => this.#reportOf(operation, code * FIELDS))
      .filter(({ count }) => count > 0);
  }

  #reportOf(operation: string, at: number): OperationReport {
    const value = (field: number) => this.#values[at + field] as number;
    const latency = this.#values.subarray(at + LATENCY, at + FIELDS), max = value(MICROS_MAX);
    const quantile = (level: number) => Math.min(latencyQuantile(latency, level), max);
    return {
      operation,
      count: value(COUNT),
      errors: value(ERRORS),
      bytes: value(BYTES),
      latency_us: {
        mean: value(MICROS) / Math.max(value(COUNT), 1),
        p50: quantile(0.5),
        p99: quantile(0.99),
        max,
      },
    };
  }
}

function namesByCode(names: Readonly<Record<keyof typeof OPERATION, string>>): string[] {
  const byCode: string[] = [];
  for (const [operation, name] of Object.entries(names)) {
    byCode[OPERATION[operation as keyof typeof OPERATION]] = name;
  }
  return byCode;
}
