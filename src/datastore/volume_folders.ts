/**
 * Volumes as folders of one directory: `<id>/data` (a thin file), `<id>/volume.json` (its record) and
 * `<id>/plane/` (the data plane's own files, where one serves the volume).
 *
 * Faults: the process may be killed, or the power may go, between any two calls. A folder is made under a
 * name beginning with `.psma-` and gets its own name last, and loses it first: so a name always names a
 * whole volume. What was left over is removed by `sweep`, and nothing that does not bear our prefix is.
 * Not promised: two processes at once; the caller holds the lock.
 */
import { statfs } from "node:fs/promises";
import {
  type Clock,
  extendFile,
  formatSize,
  type Log,
  PsmaError,
  replaceFile,
  type Rng,
  syncDirectory,
  writeFlushed,
} from "../core/mod.ts";
import { decodeRecord, encodeRecord, type VolumeRecord } from "./volume_record.ts";

const RECORD = "volume.json";
const DATA = "data";
const PLANE = "plane";
const MAKING = ".psma-making-";
const GONE = ".psma-gone-";
const LOCK = ".psma-lock";
const LOCK_EVERY_MS = 20;
const STAT_BLOCK_BYTES = 512;
/** A new volume is refused below this: the file system needs room for what exists already. */
const FREE_FLOOR_BYTES: number = 64 * 1024 ** 2;

export interface FolderOptions {
  readonly log: Log;
  readonly clock: Clock;
  readonly rng: Rng;
  readonly free_floor_bytes?: number;
}

export interface Space {
  /** Two directories of one file system share its room, and have the same number here. */
  readonly device: number;
  readonly total_bytes: number;
  /** As far as this user may fill it. */
  readonly free_bytes: number;
}

export class VolumeFolders {
  readonly #options: FolderOptions;

  constructor(readonly directory: string, options: FolderOptions) {
    this.#options = options;
  }

  dataPath(id: string): string {
    return `${this.directory}/${id}/${DATA}`;
  }

  planePath(id: string): string {
    return `${this.directory}/${id}/${PLANE}`;
  }

  /**
   * Makes the directory where it is missing and takes its lock, which the kernel takes back when the
   * process ends, however it ends.
   * @throws {PsmaError} state/locked when another process has it for `within_ms`; io/store
   */
  async lock(within_ms: number): Promise<Disposable> {
    const path = `${this.directory}/${LOCK}`;
    const file = await storeCall(`open ${this.directory}`, async () => {
      await Deno.mkdir(this.directory, { recursive: true, mode: 0o700 });
      return await Deno.open(path, { read: true, write: true, create: true, mode: 0o600 });
    });
    const { clock } = this.#options;
    const until_ms = clock.monotonicMs() + within_ms;
    while (!await file.tryLock(true)) {
      if (clock.monotonicMs() >= until_ms) {
        file.close();
        throw new PsmaError(
          "state/locked",
          `Cannot use ${this.directory}: another process serves it`,
          { hint: "Stop the other psma, or give this one a directory of its own." },
        );
      }
      await clock.sleep(LOCK_EVERY_MS);
    }
    return { [Symbol.dispose]: () => file.close() };
  }

  /**
   * Removes what a crash left half made or half deleted, and makes durable what is there: who renamed it may have
   * been killed just before it was, and an epoch that is believed now must not be gone after a power loss.
   */
  async sweep(): Promise<void> {
    for (const name of await this.#names()) await syncDirectory(`${this.directory}/${name}`);
    await syncDirectory(this.directory);
    for await (const { name } of Deno.readDir(this.directory)) {
      if (!name.startsWith(MAKING) && !name.startsWith(GONE)) continue;
      await Deno.remove(`${this.directory}/${name}`, { recursive: true });
      this.#options.log.info("removed what a crash left over", { folder: name });
    }
  }

  /** All whole volumes, sorted by id. A damaged record is logged and left alone, with its bytes. */
  async list(): Promise<VolumeRecord[]> {
    const records: VolumeRecord[] = [];
    for (const name of await this.#names()) {
      try {
        const record = await this.read(name);
        if (record) records.push(record);
      } catch (error) {
        if (!(error instanceof PsmaError) || error.code !== "io/record") throw error;
        this.#options.log.error("left a volume alone", { volume: name, reason: error.message });
      }
    }
    return records;
  }

  /** @returns undefined when there is none. @throws {PsmaError} io/record */
  async read(id: string): Promise<VolumeRecord | undefined> {
    const path = `${this.directory}/${id}/${RECORD}`;
    try {
      return decodeRecord(await Deno.readTextFile(path), path);
    } catch (error) {
      if (isMissing(error)) return undefined;
      throw error;
    }
  }

  /** Makes the volume, durably. @throws {PsmaError} state/exists, store/full, usage/size */
  async create(record: VolumeRecord): Promise<void> {
    const { id, size_bytes } = record;
    await this.#checkFree(id);
    if (await exists(`${this.directory}/${id}`)) throw existsAlready(id);
    const making = `${this.directory}/${MAKING}${id}-${this.#options.rng.hex(4)}`;
    await storeCall(`create ${id}`, async () => {
      try {
        await Deno.mkdir(`${making}/${PLANE}`, { recursive: true, mode: 0o700 });
        await extendFile(`${making}/${DATA}`, size_bytes);
        await writeFlushed(`${making}/${RECORD}`, encodeRecord(record));
        await syncDirectory(making);
        await Deno.rename(making, `${this.directory}/${id}`);
        await syncDirectory(this.directory);
      } catch (error) {
        await Deno.remove(making, { recursive: true }).catch(() => {});
        throw error;
      }
    });
  }

  /** Replaces the record, durably. */
  async update(record: VolumeRecord): Promise<void> {
    const path = `${this.directory}/${record.id}/${RECORD}`;
    await storeCall(`update ${record.id}`, () => replaceFile(path, encodeRecord(record)));
  }

  /** Lengthens the bytes, durably, and not the record: so a crash leaves a file that is too long at worst. */
  async extend(id: string, size_bytes: number): Promise<void> {
    await storeCall(`grow ${id}`, () => extendFile(this.dataPath(id), size_bytes));
  }

  /** Deletes the volume: gone for good once its name is. Bytes that resist are left to the next sweep. */
  async remove(id: string): Promise<void> {
    const gone = `${this.directory}/${GONE}${id}-${this.#options.rng.hex(4)}`;
    await storeCall(`delete ${id}`, async () => {
      await Deno.rename(`${this.directory}/${id}`, gone);
      await syncDirectory(this.directory);
    });
    await Deno.remove(gone, { recursive: true }).catch((error: Error) =>
      this.#options.log.warn("left bytes to remove later", { folder: gone, reason: error.message })
    );
  }

  /** Bytes that the volume takes up on disk. */
  async allocatedBytes(id: string): Promise<number> {
    try {
      return ((await Deno.stat(this.dataPath(id))).blocks ?? 0) * STAT_BLOCK_BYTES;
    } catch (error) {
      if (isMissing(error)) return 0;
      throw error;
    }
  }

  /** Of the file system that the directory is on. */
  async space(): Promise<Space> {
    const { bsize, blocks, bavail } = await statfs(this.directory);
    const { dev } = await Deno.stat(this.directory);
    return { device: dev, total_bytes: blocks * bsize, free_bytes: bavail * bsize };
  }

  async #checkFree(id: string) {
    const { free_floor_bytes = FREE_FLOOR_BYTES } = this.#options;
    const { free_bytes } = await this.space();
    if (free_bytes >= free_floor_bytes) return;
    const free = formatSize(free_bytes), floor = formatSize(free_floor_bytes);
    throw new PsmaError(
      "store/full",
      `Cannot create ${id}: ${this.directory} has ${free} free, ${floor} is kept for what exists`,
      { hint: "Delete volumes that nobody needs, or add a disk." },
    );
  }

  async #names(): Promise<string[]> {
    const names: string[] = [];
    for await (const entry of Deno.readDir(this.directory)) {
      if (entry.isDirectory && !entry.name.startsWith(".")) names.push(entry.name);
    }
    return names.sort();
  }
}

export function existsAlready(id: string): PsmaError {
  return new PsmaError("state/exists", `Cannot create ${id}: the name is taken`, {
    hint: "Choose another name, or delete that volume first.",
  });
}

export function noSuchVolume(id: string, verb: string): PsmaError {
  return new PsmaError(
    "not-found/store-volume",
    `Cannot ${verb} ${id}: the store has no such volume`,
  );
}

function isMissing(error: unknown): boolean {
  return error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory;
}

async function exists(path: string): Promise<boolean> {
  try {
    await Deno.lstat(path);
    return true;
  } catch (error) {
    if (isMissing(error)) return false;
    throw error;
  }
}

/** Runs file system calls and says what they were for when they fail. */
async function storeCall<T>(what: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof PsmaError) throw error;
    const { code, message } = error as { code?: string; message: string };
    const options = { cause: error };
    if (code === "ENOSPC" || code === "EDQUOT") {
      throw new PsmaError("store/full", `Cannot ${what}: the disk is full`, options);
    }
    if (code === "EFBIG") {
      throw new PsmaError(
        "usage/size",
        `Cannot ${what}: its file system has no files so large`,
        options,
      );
    }
    throw new PsmaError("io/store", `Cannot ${what}: ${message}`, options);
  }
}
