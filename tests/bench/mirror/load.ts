/**
 * The application: fio's nbd engine with 4 KiB at random, each request's latency and moment on record,
 * so that any stretch of time can be looked at afterwards, to the millisecond.
 */
import { start } from "../../support/process.ts";

export interface LoadKind {
  readonly work: string;
  readonly depth: number;
  /** Default: all of them write. */
  readonly reads_percent?: number;
  /** Requests per second that it asks for at most, of reads and of writes each; null for all that it gets. */
  readonly rate: number | null;
}

export const LOADS: readonly [LoadKind, LoadKind] = [
  { work: "4k randwrite at 10,000 IOPS", depth: 16, rate: 10_000 },
  { work: "4k randwrite QD32", depth: 32, rate: null },
];

/** A stretch of time, Unix milliseconds. */
export interface Stretch {
  readonly from_ms: number;
  readonly to_ms: number;
}

/** On the clock that fio's log has. */
export function now_ms(): number {
  return performance.timeOrigin + performance.now();
}

export function pass(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** For as long as the work takes. */
export async function stretch(work: () => Promise<unknown>): Promise<Stretch> {
  const from_ms = now_ms();
  await work();
  return { from_ms, to_ms: now_ms() };
}

/** Latencies from submission to completion, of requests that completed in a stretch. */
export interface Latencies {
  readonly operations_per_s: number;
  readonly p99_us: number;
  readonly p999_us: number;
  readonly max_us: number;
}

export interface Load extends AsyncDisposable {
  /** Ends it. @returns what it recorded. @throws {Error} when a request failed. */
  end(): Promise<LatencyLog>;
}

/** Every request of a load: when it completed, and what it took. */
export class LatencyLog {
  constructor(readonly moments_ms: Float64Array, readonly latencies_us: Float64Array) {}

  /** Latencies of a stretch, the shortest first. */
  sorted({ from_ms, to_ms }: Stretch): Float64Array {
    return this.latencies_us.filter((_, index) => {
      const at_ms = this.moments_ms[index] ?? NaN;
      return at_ms >= from_ms && at_ms < to_ms;
    }).sort();
  }

  /** @returns undefined for a stretch in which nothing completed. */
  in(stretch: Stretch): Latencies | undefined {
    const own = this.sorted(stretch);
    if (own.length === 0) return undefined;
    return {
      operations_per_s: own.length / (stretch.to_ms - stretch.from_ms) * 1000,
      p99_us: quantile(own, 0.99),
      p999_us: quantile(own, 0.999),
      max_us: own.at(-1) ?? NaN,
    };
  }
}

/** @param sorted the smallest first. */
export function quantile(sorted: Float64Array, level: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * level))] ?? NaN;
}

/** Starts it and waits for its first requests. @param directory for its log; on tmpfs it disturbs nobody. */
export async function startLoad(
  uri: string,
  { depth, rate, reads_percent = 0 }: LoadKind,
  size_bytes: number,
  directory: string,
): Promise<Load> {
  const prefix = `${directory}/load`, status = `${directory}/load.status`;
  const fio = start("fio", [
    "--name=load",
    "--ioengine=nbd",
    `--uri=${uri}`,
    "--rw=randrw",
    `--rwmixread=${reads_percent}`,
    "--bs=4k",
    `--iodepth=${depth}`,
    ...(rate === null ? [] : [`--rate_iops=${rate},${rate}`]),
    "--thread",
    `--size=${size_bytes}`,
    "--norandommap",
    "--time_based",
    "--runtime=3600",
    `--write_lat_log=${prefix}`,
    "--disable_slat=1",
    "--disable_clat=1",
    "--log_unix_epoch=1",
    "--output-format=json",
    `--output=${status}`,
    "--eta=always",
    "--eta-newline=1",
  ]);
  try {
    await fio.line(/Jobs: 1 \(f=1\)/);
  } catch (error) {
    await fio[Symbol.asyncDispose]();
    throw error;
  }
  return {
    async end() {
      await fio.end("SIGINT");
      const text = Deno.readTextFileSync(status);
      const { jobs: [job] } = JSON.parse(text.slice(text.indexOf("{"))) as {
        jobs: { error: number }[];
      };
      if (job?.error !== 0) throw new Error(`fio failed: ${text}${fio.output()}`);
      return decodeLog(Deno.readFileSync(`${prefix}_lat.1.log`));
    },
    [Symbol.asyncDispose]: () => fio[Symbol.asyncDispose](),
  };
}

const LINE_FEED = 10, ZERO = 48, NINE = 57;

/** fio's log: lines of `milliseconds, nanoseconds, …`. */
export function decodeLog(bytes: Uint8Array): LatencyLog {
  let lines = 0;
  for (const byte of bytes) if (byte === LINE_FEED) lines++;
  const moments_ms = new Float64Array(lines), latencies_us = new Float64Array(lines);
  let at = 0;
  const number = () => {
    while ((bytes[at] ?? ZERO) < ZERO || (bytes[at] ?? ZERO) > NINE) at++;
    let value = 0;
    for (let digit = bytes[at] ?? 0; digit >= ZERO && digit <= NINE; digit = bytes[++at] ?? 0) {
      value = value * 10 + digit - ZERO;
    }
    return value;
  };
  for (let line = 0; line < lines; line++) {
    moments_ms[line] = number();
    latencies_us[line] = number() / 1000;
    at = bytes.indexOf(LINE_FEED, at) + 1;
  }
  return new LatencyLog(moments_ms, latencies_us);
}
