/** The jobs that every server is given, and what one run of fio says about them. */
import { run } from "../../support/process.ts";

const MIB = 2 ** 20;
/** Of every file that is served. */
export const SIZE_BYTES = 256 * MIB;

export interface Job {
  readonly work: string;
  readonly rw: string;
  readonly block_bytes: number;
  /** Requests in flight on each connection. */
  readonly depth: number;
  readonly connections: number;
  /** Whether its 99th percentile is a result. */
  readonly p99: boolean;
  /** Ends after so many, however long that takes. */
  readonly io_bytes?: number;
}

export const JOBS: readonly Job[] = [
  small("4k randread QD1", "randread", 1),
  small("4k randwrite QD1", "randwrite", 1),
  small("4k randread QD32", "randread", 32),
  small("4k randwrite QD32", "randwrite", 32),
  { ...small("4k randrw 70/30 QD32, 4 connections", "randrw", 32), connections: 4, p99: false },
  large("256k read QD8", "read"),
  large("256k write QD8", "write"),
];

function small(work: string, rw: string, depth: number): Job {
  return { work, rw, block_bytes: 4096, depth, connections: 1, p99: depth === 32 };
}

function large(work: string, rw: string): Job {
  return { work, rw, block_bytes: 256 * 1024, depth: 8, connections: 1, p99: false };
}

export interface FioFigures {
  readonly operations: number;
  readonly bytes: number;
  readonly operations_per_s: number;
  readonly bytes_per_s: number;
  /** Of completion latencies, of reads or of writes, whichever is larger. */
  readonly p99_us: number;
}

interface Direction {
  readonly iops: number;
  readonly bw_bytes: number;
  readonly total_ios: number;
  readonly io_bytes: number;
  readonly clat_ns: { readonly percentile?: { readonly "99.000000"?: number } };
}

/**
 * @param target what names the server: `--ioengine=nbd --uri=…`, or an engine and `--filename=…`.
 * @param sizeBytes of what is read and written.
 */
export async function runFio(
  target: readonly string[],
  job: Job,
  seconds: number,
  sizeBytes = SIZE_BYTES,
): Promise<FioFigures> {
  const { stdout } = await run("fio", [
    "--name=bench",
    ...target,
    `--rw=${job.rw}`,
    "--rwmixread=70",
    `--bs=${job.block_bytes}`,
    `--iodepth=${job.depth}`,
    `--numjobs=${job.connections}`,
    "--thread",
    "--group_reporting",
    `--size=${sizeBytes}`,
    "--norandommap",
    ...(job.io_bytes === undefined
      ? ["--time_based", `--runtime=${seconds}`]
      : [`--io_size=${job.io_bytes}`]),
    "--output-format=json",
  ], { within_ms: seconds * 1000 + 60_000 });
  const result = JSON.parse(stdout.slice(stdout.indexOf("{"))) as {
    jobs: { error: number; read: Direction; write: Direction }[];
  };
  const [first] = result.jobs;
  if (first === undefined || first.error !== 0) throw new Error(`fio failed: ${stdout}`);
  const { read, write } = first;
  const p99 = (one: Direction) => (one.clat_ns.percentile?.["99.000000"] ?? 0) / 1000;
  return {
    operations: read.total_ios + write.total_ios,
    bytes: read.io_bytes + write.io_bytes,
    operations_per_s: read.iops + write.iops,
    bytes_per_s: read.bw_bytes + write.bw_bytes,
    p99_us: Math.max(p99(read), p99(write)),
  };
}
