/**
 * The sampler: one look at every volume's counters, device and file system, as samples for the forecaster
 * and as the values that are shown.
 *
 * Faults: a file system that does not answer is asked once and not again until it does, so questions never
 * pile up; what was last known stays in view and is not sampled again, nor does a volume look empty while its
 * store has not answered. A mount point without the volume's file system on it tells nothing. A device that is
 * not there has no rates.
 */
import { type Clock, type Log, PsmaError } from "../core/mod.ts";
import { decodeDiskstats, type DiskStats } from "../codec/mod.ts";
import { mountsAt, statFilesystem } from "../sys/mod.ts";
import { type CounterPage, readCounterPage } from "./counter_page.ts";
import { decodePressure, type Pressure } from "./pressure.ts";
import { compareReadings, type Reading } from "./rates.ts";

/** Names as the forecaster knows them. */
export type SampledMetric =
  | "used_bytes"
  | "allocated_bytes"
  | "inodes_used"
  | "write_bytes_per_s"
  | "read_bytes_per_s"
  | "write_iops"
  | "read_iops"
  | "flush_iops"
  | "changed_bytes_per_s"
  | "device_write_bytes_per_s"
  | "device_read_bytes_per_s"
  | "device_busy_ratio";

export interface VolumeSample {
  readonly volume: string;
  readonly metric: SampledMetric;
  readonly at_ms: number;
  readonly value: number;
}

export interface FilesystemUse {
  readonly size_bytes: number;
  readonly used_bytes: number;
  /** What a user without root's reserve can still write. */
  readonly available_bytes: number;
  readonly inodes_total: number;
  readonly inodes_used: number;
}

/** What there is to look at of one volume. */
export interface Watched {
  readonly volume: string;
  /** The data plane's counter page; undefined while the volume is not open. */
  readonly page: Float64Array | undefined;
  /** Bytes that its store has allocated, where the page cannot tell; null: nobody knows. */
  readonly allocated_bytes?: number | null | undefined;
  /** Where its file system is mounted; null for a raw volume. */
  readonly mount: string | null;
  /** Name in /proc/diskstats: `loop3`. */
  readonly device: string | null;
}

/** One look at one volume. */
export interface Observation {
  readonly volume: string;
  readonly counters: CounterPage | null;
  /** Null for a raw volume, and until the file system has answered once. */
  readonly filesystem: FilesystemUse | null;
  /** What was last known while nobody can tell; 0 until somebody has. */
  readonly used_bytes: number;
  /** For the forecaster. */
  readonly samples: readonly VolumeSample[];
}

export interface SamplerOptions {
  readonly clock: Clock;
  /** Told at debug why an interval has no rates. */
  readonly log: Log;
  readonly interval_ms: number;
  /** Default: asks the kernel. @throws when the device's file system is not mounted there. */
  readonly statFilesystem?: (mount: string, device: string | null) => Promise<FilesystemUse>;
  /** @returns undefined where there is no such file. Default: reads the file. */
  readonly readText?: (path: string) => string | undefined;
}

/** How long one look waits for a file system; a busy one answers in the background. */
const STATFS_WITHIN_MS = 2_000;

export class Sampler {
  /** Of the whole machine; undefined on kernels without it. */
  pressure: Pressure | undefined;
  readonly #options: SamplerOptions;
  readonly #statFilesystem: NonNullable<SamplerOptions["statFilesystem"]>;
  readonly #readText: (path: string) => string | undefined;
  /** By what was read: `volume data`, `device loop3`. */
  readonly #before = new Map<string, Reading>();
  readonly #filesystems = new Map<string, FilesystemUse>();
  /** Used bytes as last known. */
  readonly #used = new Map<string, number>();
  readonly #asking = new Map<string, Promise<boolean>>();

  constructor(options: SamplerOptions) {
    this.#options = options;
    this.#statFilesystem = options.statFilesystem ?? askKernel;
    this.#readText = options.readText ?? readText;
  }

  /** Looks at all volumes once. @returns one observation for each that is open, in order. */
  async observe(watched: readonly Watched[]): Promise<Observation[]> {
    const disks = new Map(
      decodeDiskstats(this.#readText("/proc/diskstats") ?? "").map((one) => [one.device, one]),
    );
    this.pressure = decodePressure(this.#readText("/proc/pressure/io") ?? "");
    const answered = await Promise.all(
      watched.map(({ mount, device }) =>
        mount === null ? false : this.#askFilesystem(mount, device)
      ),
    );
    this.#forgetAllBut(watched);
    return watched.flatMap((one, index) => {
      const disk = one.device === null ? undefined : disks.get(one.device);
      return this.#observe(one, disk, answered[index] ?? false) ?? [];
    });
  }

  #observe(
    { volume, page, mount, allocated_bytes }: Watched,
    disk: DiskStats | undefined,
    fresh: boolean,
  ): Observation | undefined {
    if (page === undefined) return undefined;
    const counters = readCounterPage(page);
    const at_ms = this.#options.clock.nowMs();
    const filesystem = mount === null ? null : this.#filesystems.get(mount) ?? null;
    const allocated = allocated_bytes === undefined
      ? counters.allocated_bytes
      : allocated_bytes ?? undefined;
    const used_bytes = (mount === null ? allocated : filesystem?.used_bytes) ??
      this.#used.get(volume) ?? 0;
    this.#used.set(volume, used_bytes);
    const levels: Level[] = [
      ["allocated_bytes", allocated],
      ...mount === null ? [["used_bytes", allocated] satisfies Level] : [],
      ...fresh ? filesystemLevels(filesystem) : [],
      ...volumeRates(this.#ratesOf(volumeKey(volume), risingOf(counters))),
      ...disk ? this.#deviceRates(disk) : [],
    ];
    return {
      volume,
      counters,
      filesystem,
      used_bytes,
      samples: levels.flatMap(([metric, value]) =>
        value === undefined ? [] : [{ volume, metric, at_ms, value }]
      ),
    };
  }

  /** Also what reaches the device without the volume's doing: the loop driver's own cache works in between. */
  #deviceRates({ device, read_bytes, write_bytes, busy_ms }: DiskStats): Level[] {
    const rising = { read_bytes, write_bytes, busy_ms };
    const rates = this.#ratesOf(deviceKey(device), rising, ["busy_ms"]);
    return rates === undefined ? [] : [
      ["device_write_bytes_per_s", rates["write_bytes"]],
      ["device_read_bytes_per_s", rates["read_bytes"]],
      ["device_busy_ratio", Math.min(1, (rates["busy_ms"] ?? 0) / 1000)],
    ];
  }

  /** Per second since the look before; undefined where that is not known, and the log says why. */
  #ratesOf(
    key: string,
    counters: Readonly<Record<string, number>>,
    wraps: readonly string[] = [],
  ): Readonly<Record<string, number>> | undefined {
    const { clock, interval_ms, log } = this.#options;
    const now = { at_ms: clock.nowMs(), monotonic_ms: clock.monotonicMs(), counters };
    const { rates, oddities } = compareReadings(this.#before.get(key), now, { interval_ms, wraps });
    this.#before.set(key, now);
    const odd = oddities.filter((one) => one !== "first").join(", ");
    if (odd !== "") log.debug("counters are odd", { of: key, odd, rates: rates !== undefined });
    return rates;
  }

  /** @returns whether an answer came in time for this look. */
  async #askFilesystem(mount: string, device: string | null): Promise<boolean> {
    if (this.#asking.has(mount)) return false;
    const asking = this.#statFilesystem(mount, device).then(
      (use) => {
        this.#filesystems.set(mount, use);
        return true;
      },
      () => {
        this.#filesystems.delete(mount);
        return false;
      },
    ).finally(() => this.#asking.delete(mount));
    this.#asking.set(mount, asking);
    const inTime = new AbortController();
    const late = this.#options.clock.sleep(STATFS_WITHIN_MS, inTime.signal)
      .then(() => false, () => false);
    try {
      return await Promise.race([asking, late]);
    } finally {
      inTime.abort();
    }
  }

  #forgetAllBut(watched: readonly Watched[]) {
    keepOnly(this.#used, watched.map(({ volume }) => volume));
    keepOnly(this.#filesystems, watched.map(({ mount }) => mount));
    keepOnly(
      this.#before,
      watched.flatMap(({ volume, device }) => [
        volumeKey(volume),
        ...device === null ? [] : [deviceKey(device)],
      ]),
    );
  }
}

function keepOnly(map: Map<string, unknown>, keys: readonly (string | null)[]): void {
  const kept = new Set(keys);
  for (const key of map.keys()) if (!kept.has(key)) map.delete(key);
}

const volumeKey = (volume: string) => `volume ${volume}`;
const deviceKey = (device: string) => `device ${device}`;

type Level = [SampledMetric, number | undefined];

function filesystemLevels(use: FilesystemUse | null): Level[] {
  return [["used_bytes", use?.used_bytes], ["inodes_used", use?.inodes_used]];
}

/**
 * Looks before and after: on a mount point that was just given up it would be the use of the machine's own file
 * system, and a plan would be made of it.
 */
async function askKernel(mount: string, device: string | null): Promise<FilesystemUse> {
  mustBeMounted(mount, device);
  const use = await statFilesystem(mount);
  mustBeMounted(mount, device);
  const { total_bytes, used_bytes, available_bytes, inodes, free_inodes } = use;
  return {
    size_bytes: total_bytes,
    used_bytes,
    available_bytes,
    inodes_total: inodes,
    inodes_used: inodes - free_inodes,
  };
}

function mustBeMounted(mount: string, device: string | null): void {
  if (mountsAt(mount).at(-1)?.source === `/dev/${device}`) return;
  throw new PsmaError(
    "state/not-mounted",
    `Cannot measure ${mount}: ${device} is not mounted there`,
  );
}

function risingOf(counters: CounterPage): Record<string, number> {
  const { reads, writes, flushes, read_bytes, write_bytes, changed_bytes } = counters;
  return { reads, writes, flushes, read_bytes, write_bytes, changed_bytes };
}

function volumeRates(
  rates: Readonly<Record<string, number>> | undefined,
): Level[] {
  if (rates === undefined) return [];
  return [
    ["write_bytes_per_s", rates["write_bytes"]],
    ["read_bytes_per_s", rates["read_bytes"]],
    ["write_iops", rates["writes"]],
    ["read_iops", rates["reads"]],
    ["flush_iops", rates["flushes"]],
    ["changed_bytes_per_s", rates["changed_bytes"]],
  ];
}

function readText(path: string): string | undefined {
  try {
    return Deno.readTextFileSync(path);
  } catch {
    return undefined; // An older kernel, or a container without it: the sampler does without.
  }
}
