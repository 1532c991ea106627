/**
 * Which files own ranges of a mounted file system's device. The file system tells its own structures, free
 * space and, where it knows them, inodes; for all else the files are walked and asked where their bytes are.
 * Bounded by time: what was not reached is said (`complete`).
 *
 * ext4 and xfs, whose addresses are those of their device. Not promised: bytes that are on no block yet, and
 * files that move or go while they are looked for.
 */
import type { Clock } from "../core/mod.ts";
import {
  decodeFiemap,
  decodeFsmap,
  encodeFiemapRequest,
  encodeFsmapRequest,
  FS_IOC_FIEMAP,
  FS_IOC_GETFSMAP,
} from "../codec/mod.ts";
import { attempt } from "./attempt.ts";
import { openDescriptor } from "./descriptor.ts";
import { libc } from "./libc.ts";
import { mountsAt } from "./mountinfo.ts";

const KNOWN_TYPES: readonly string[] = ["ext4", "xfs"];
const FSMAP_RECORDS = 512, FIEMAP_EXTENTS = 256;
const O_RDONLY = 0, O_NONBLOCK = 0o4000;
const O_NOFOLLOW = Deno.build.arch === "aarch64" ? 0o100000 : 0o400000;
const FILES_SHOWN_MAX = 16;

export interface DeviceRange {
  readonly at: number;
  readonly length: number;
}

/** Who owns a range. */
export interface RangeOwners extends DeviceRange {
  /** Paths, a few at most; a file of several names has one here. */
  readonly files: readonly string[];
  /** The file system's own structures are in it. */
  readonly has_metadata: boolean;
  /** No file needs some of its bytes. */
  readonly has_free: boolean;
  /** False: there may be other files, for the time was up or this file system does not tell. */
  readonly complete: boolean;
}

interface Found {
  readonly range: DeviceRange;
  readonly files: Set<string>;
  has_metadata: boolean;
  has_free: boolean;
}

/**
 * Walks the file system that is mounted at `mount`. It may sleep on the device: see dataplane/host/tasks.ts.
 * @param within_ms how long it may look.
 */
export function findOwners(
  { mount, ranges, within_ms, clock }: {
    mount: string;
    ranges: readonly DeviceRange[];
    within_ms: number;
    clock: Clock;
  },
): RangeOwners[] {
  const found = ranges.map((range): Found => ({
    range,
    files: new Set(),
    has_metadata: false,
    has_free: false,
  }));
  const type = mountsAt(mount).at(-1)?.type ?? "";
  const complete = KNOWN_TYPES.includes(type) &&
    new Search(mount, found, clock, clock.monotonicMs() + within_ms).run();
  return found.map(({ range, files, has_metadata, has_free }) => ({
    at: range.at,
    length: range.length,
    files: [...files].slice(0, FILES_SHOWN_MAX),
    has_metadata,
    has_free,
    complete,
  }));
}

class Search {
  readonly #device: number;
  /** Inodes that the file system named, and whose ranges they are in. */
  readonly #inodes = new Map<number, Found[]>();
  /** Ranges of which the file system does not say everything. */
  readonly #open: Found[] = [];

  constructor(
    readonly mount: string,
    readonly found: readonly Found[],
    readonly clock: Clock,
    readonly untilMs: number,
  ) {
    this.#device = Deno.statSync(mount).dev;
  }

  /** @returns whether everything was looked at. */
  run(): boolean {
    for (const one of this.found) if (!this.#askFilesystem(one)) this.#open.push(one);
    return this.#open.length === 0 && this.#inodes.size === 0 ? true : this.#walk();
  }

  get #isLate(): boolean {
    return this.clock.monotonicMs() >= this.untilMs;
  }

  /** @returns whether it knows the owner of every byte. */
  #askFilesystem(found: Found): boolean {
    const { at, length } = found.range, end = at + length;
    using directory = openDescriptor(this.mount, O_RDONLY);
    let known = at;
    for (let from = at; from < end && !this.#isLate;) {
      const bytes = encodeFsmapRequest({
        device: this.#device,
        at: from,
        end,
        records: FSMAP_RECORDS,
      });
      if (attempt(() => libc().ioctl(directory.fd, FS_IOC_GETFSMAP, bytes)) < 0) return false;
      const records = decodeFsmap(bytes);
      for (const record of records) {
        const upTo = record.at + record.length;
        if (record.at >= end || upTo <= at) continue;
        if (record.owner === "free") found.has_free = true;
        else if (record.owner === "metadata") found.has_metadata = true;
        else if (typeof record.owner === "number") this.#want(record.owner, found);
        if (record.owner !== "unknown" && record.at <= known) known = Math.max(known, upTo);
      }
      const last = records.at(-1);
      if (last === undefined || last.isLast || last.at + last.length <= from) break;
      from = last.at + last.length;
    }
    return known >= end;
  }

  #want(inode: number, found: Found) {
    const wanted = this.#inodes.get(inode) ?? [];
    if (!wanted.includes(found)) this.#inodes.set(inode, [...wanted, found]);
  }

  /** @returns false when the time was up before the end. */
  #walk(): boolean {
    const folders = [this.mount];
    for (let folder = folders.pop(); folder !== undefined; folder = folders.pop()) {
      for (const name of entriesOf(folder)) {
        if (this.#isLate) return false;
        const path = `${folder === "/" ? "" : folder}/${name}`;
        if (this.#look(path) === "folder") folders.push(path);
        if (this.#open.length === 0 && this.#inodes.size === 0) return true;
      }
    }
    return true;
  }

  #look(path: string): "folder" | "other" {
    const info = statOf(path);
    if (info === undefined || info.dev !== this.#device) return "other";
    if (info.ino !== null) {
      for (const found of this.#inodes.get(info.ino) ?? []) found.files.add(path);
      this.#inodes.delete(info.ino);
    }
    if (this.#open.length > 0 && (info.isFile || info.isDirectory)) this.#askFile(path);
    return info.isDirectory ? "folder" : "other";
  }

  #askFile(path: string) {
    try {
      using file = openDescriptor(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
      for (let logical = 0; !this.#isLate;) {
        const bytes = encodeFiemapRequest({ logical, extents: FIEMAP_EXTENTS });
        if (attempt(() => libc().ioctl(file.fd, FS_IOC_FIEMAP, bytes)) < 0) return;
        const extents = decodeFiemap(bytes);
        for (const { physical, length } of extents) {
          for (const { range, files } of physical < 0 ? [] : this.#open) {
            if (physical < range.at + range.length && range.at < physical + length) files.add(path);
          }
        }
        const last = extents.at(-1);
        if (last === undefined || last.isLast) return;
        logical = last.logical + last.length;
      }
    } catch {
      // Gone meanwhile, or not for us: it owns nothing that we could name.
    }
  }
}

function entriesOf(folder: string): string[] {
  try {
    return [...Deno.readDirSync(folder)].map(({ name }) => name);
  } catch {
    return [];
  }
}

function statOf(path: string): Deno.FileInfo | undefined {
  try {
    return Deno.lstatSync(path);
  } catch {
    return undefined;
  }
}
