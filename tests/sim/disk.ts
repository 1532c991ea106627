/**
 * A virtual disk: files with a page cache over a durable layer, and a directory whose changes are durable only
 * after it was synced. Sectors of 512 bytes are written whole; what was not synced is old or new, sector by
 * sector, after a power loss, and directory changes are lost from some point on, in order.
 */
import { isZero } from "../../src/mirror/mod.ts";
import type { World } from "./world.ts";

export const SECTOR_BYTES = 512;
const BLOCK_BYTES = 4096;
const EIO = 5, ENOSPC = 28, EINTR = 4, EAGAIN = 11, EINVAL = 22;

/** How a disk behaves now; probabilities per operation. */
export interface DiskWeather {
  /** Operations fail with EIO. */
  errors: number;
  /** Operations are interrupted, or move fewer bytes than asked. */
  shorts: number;
  /** Operations take very long. */
  stalls: number;
  /** Nothing can be written to holes. */
  full: boolean;
  /** Written bytes are persisted with a flipped bit. */
  bitFlips: number;
}

export function fairWeather(): DiskWeather {
  return { errors: 0, shorts: 0, stalls: 0, full: false, bitFlips: 0 };
}

export class VirtualFile {
  /** What a reader sees. */
  cache: Uint8Array<ArrayBuffer>;
  /** What the platter has. */
  durable: Uint8Array<ArrayBuffer>;
  /** Per sector: when it was written last; 0 when the platter has it. */
  #writtenAt: Float64Array;
  /** Memory mappings write without telling: then every sector is looked at. */
  mapped = false;

  constructor(bytes: Uint8Array<ArrayBuffer>) {
    this.cache = bytes;
    this.durable = new Uint8Array(0);
    this.#writtenAt = new Float64Array(Math.ceil(bytes.length / SECTOR_BYTES)).fill(1);
  }

  resize(length: number): void {
    const resized = (bytes: Uint8Array<ArrayBuffer>) => {
      const to = new Uint8Array(length);
      to.set(bytes.subarray(0, length));
      return to;
    };
    this.cache = resized(this.cache);
    const writtenAt = new Float64Array(Math.ceil(length / SECTOR_BYTES));
    writtenAt.set(this.#writtenAt.subarray(0, writtenAt.length));
    this.#writtenAt = writtenAt;
  }

  changed(at: number, length: number, seq: number): void {
    const end = Math.ceil((at + length) / SECTOR_BYTES);
    this.#writtenAt.fill(seq, Math.floor(at / SECTOR_BYTES), end);
  }

  /** Sectors whose durable bytes may be older than the cache's. */
  #unsynced(sector: number): boolean {
    if ((this.#writtenAt[sector] as number) > 0) return true;
    if (!this.mapped) return false;
    const from = sector * SECTOR_BYTES, end = Math.min(from + SECTOR_BYTES, this.cache.length);
    for (let i = from; i < end; i++) if (this.cache[i] !== this.durable[i]) return true;
    return false;
  }

  /** The sectors that a sync which begins now must make durable. */
  capture(): number[] {
    const sectors: number[] = [];
    for (let i = 0; i < this.#writtenAt.length; i++) if (this.#unsynced(i)) sectors.push(i);
    return sectors;
  }

  /** A sync has ended that began when `seq` was the last write. */
  synced(sectors: readonly number[], seq: number): void {
    this.#fitDurable();
    for (const sector of sectors) this.#persist(sector, seq);
  }

  #fitDurable() {
    if (this.durable.length === this.cache.length) return;
    const durable = new Uint8Array(this.cache.length);
    durable.set(this.durable.subarray(0, durable.length));
    this.durable = durable;
  }

  #persist(sector: number, seq: number) {
    const from = sector * SECTOR_BYTES;
    if (from >= this.cache.length) return;
    this.durable.set(this.cache.subarray(from, from + SECTOR_BYTES), from);
    if ((this.#writtenAt[sector] as number) <= seq) this.#writtenAt[sector] = 0;
  }

  /** The kernel writes some sectors back by itself. */
  writeBack(world: World): void {
    this.#fitDurable();
    const part = world.rng.float();
    for (const sector of this.capture()) if (world.chance(part)) this.#persist(sector, Infinity);
  }

  /** What stands after the power came back. */
  powerLoss(world: World): void {
    this.writeBack(world);
    this.cache = this.durable.slice();
    this.#writtenAt.fill(0);
    this.mapped = false;
  }
}

interface NameChange {
  readonly path: string;
  /** Undefined: the name is gone. */
  readonly file: VirtualFile | undefined;
}

export class VirtualDisk {
  weather: DiskWeather = fairWeather();
  /** Called when a file was renamed to a path, with the file. */
  onRename: (path: string, file: VirtualFile) => void = () => {};
  /** Whether it may lie now. */
  mayFlip: () => boolean = () => false;
  readonly #names = new Map<string, VirtualFile>();
  readonly #durableNames = new Map<string, VirtualFile>();
  #changes: NameChange[] = [];
  #seq = 1;

  constructor(readonly world: World, readonly label: string) {}

  find(path: string): VirtualFile | undefined {
    return this.#names.get(path);
  }

  /** Paths of all files. */
  names(): string[] {
    return [...this.#names.keys()];
  }

  create(path: string): VirtualFile {
    const file = new VirtualFile(new Uint8Array(0));
    this.#name(path, file);
    return file;
  }

  /** A file that was there, durably, before anything happened. */
  provide(path: string, bytes: Uint8Array<ArrayBuffer>): VirtualFile {
    const file = new VirtualFile(bytes);
    file.synced(file.capture(), Infinity);
    this.#names.set(path, file);
    this.#durableNames.set(path, file);
    return file;
  }

  remove(path: string): boolean {
    if (!this.#names.has(path)) return false;
    this.#name(path, undefined);
    return true;
  }

  rename(from: string, to: string): number {
    const file = this.#names.get(from);
    if (!file) return -2;
    if (this.world.chance(this.weather.errors)) return -EIO;
    this.#names.delete(from);
    this.#names.set(to, file);
    // One step: neither name is ever missing.
    this.#changes.push({ path: to, file });
    this.#changes.push({ path: from, file: undefined });
    this.onRename(to, file);
    return 0;
  }

  #name(path: string, file: VirtualFile | undefined) {
    if (file) this.#names.set(path, file);
    else this.#names.delete(path);
    this.#changes.push({ path, file });
  }

  #makeNamesDurable(count: number) {
    for (const { path, file } of this.#changes.splice(0, count)) {
      if (file) this.#durableNames.set(path, file);
      else this.#durableNames.delete(path);
    }
  }

  /** How long an operation takes, in milliseconds. */
  delay(): number {
    const { world, weather } = this;
    if (world.chance(weather.stalls)) return world.between(20, 2000);
    return world.chance(0.05) ? world.between(1, 15) : world.between(0.02, 0.4);
  }

  /** @returns 0, or the negative errno that strikes an operation. */
  #strike(): number {
    const { world, weather } = this;
    if (world.chance(weather.errors)) return -EIO;
    if (world.chance(weather.shorts)) return world.chance(0.5) ? -EINTR : -EAGAIN;
    return 0;
  }

  /** Sectors are never split. */
  #shorten(at: number, length: number): number {
    if (!this.world.chance(this.weather.shorts)) return length;
    const end = at + 1 + this.world.rng.below(Math.max(1, length));
    const short = end - end % SECTOR_BYTES - at;
    return short > 0 && short < length ? short : length;
  }

  read(file: VirtualFile, at: number, into: Uint8Array): number {
    const strike = this.#strike();
    if (strike !== 0) return strike;
    const length = this.#shorten(at, Math.min(into.length, Math.max(0, file.cache.length - at)));
    into.set(file.cache.subarray(at, at + length));
    return length;
  }

  write(file: VirtualFile, at: number, from: Uint8Array, isDurable: boolean): number {
    const strike = this.#strike();
    if (strike !== 0) return strike;
    if (this.weather.full && this.#needsRoom(file, at, from.length)) return -ENOSPC;
    const length = this.#shorten(at, from.length);
    this.put(file, at, from.subarray(0, length));
    if (isDurable) this.#syncRange(file, at, length);
    return length;
  }

  #needsRoom(file: VirtualFile, at: number, length: number): boolean {
    return at + length > file.cache.length || isBlank(file.cache.subarray(at, at + length));
  }

  #syncRange(file: VirtualFile, at: number, length: number) {
    const first = Math.floor(at / SECTOR_BYTES), end = Math.ceil((at + length) / SECTOR_BYTES);
    file.synced(Array.from({ length: end - first }, (_, i) => first + i), this.#seq);
  }

  /** Bytes reach the cache; a lying disk flips one of their bits. */
  put(file: VirtualFile, at: number, from: Uint8Array): void {
    const { world } = this;
    if (at + from.length > file.cache.length) file.resize(at + from.length);
    file.cache.set(from, at);
    if (world.chance(this.weather.bitFlips) && this.mayFlip()) {
      const where = at + world.rng.below(from.length);
      file.cache[where] = (file.cache[where] as number) ^ (1 << world.rng.below(8));
      world.note(`${this.label} flips a bit`, where);
    }
    file.changed(at, from.length, ++this.#seq);
    if (world.chance(0.03)) file.writeBack(world);
  }

  zero(file: VirtualFile, at: number, length: number): number {
    const strike = this.#strike();
    if (strike !== 0) return strike;
    // Some file systems cannot do it for some ranges.
    if (this.world.chance(this.weather.shorts)) return -EINVAL;
    file.cache.fill(0, at, at + length);
    file.changed(at, length, ++this.#seq);
    return 0;
  }

  /** Begins a sync of a file. @returns what ends it: 0, or a negative errno. */
  beginSync(file: VirtualFile): () => number {
    const sectors = file.capture(), seq = this.#seq;
    return () => {
      const strike = this.#strike();
      if (strike === 0) file.synced(sectors, seq);
      return strike;
    };
  }

  beginSyncNames(): () => number {
    const count = this.#changes.length;
    return () => {
      const strike = this.#strike();
      if (strike === 0) this.#makeNamesDurable(Math.min(count, this.#changes.length));
      return strike;
    };
  }

  /** A write that was under way when everything stopped: some of it, in any sectors, or nothing. */
  tear(file: VirtualFile, at: number, from: Uint8Array): void {
    const { world } = this;
    if (world.chance(0.3)) return;
    const part = world.chance(0.4) ? 1 : world.rng.float();
    for (let done = 0; done < from.length;) {
      const length = Math.min(SECTOR_BYTES - (at + done) % SECTOR_BYTES, from.length - done);
      if (world.chance(part)) this.put(file, at + done, from.subarray(done, done + length));
      done += length;
    }
  }

  powerLoss(): void {
    const { world } = this;
    const files = new Set([...this.#names.values(), ...this.#durableNames.values()]);
    this.#makeNamesDurable(world.rng.below(this.#changes.length + 1));
    this.#changes = [];
    this.#names.clear();
    for (const [path, file] of this.#durableNames) this.#names.set(path, file);
    for (const file of files) file.powerLoss(world);
  }
}

/** The next run of blocks at or after `from` that hold something else than zeros. */
export function nextData(file: VirtualFile, from: number): { at: number; end: number } | undefined {
  const { cache } = file;
  const holds = (at: number) => !isBlank(cache.subarray(at, at + BLOCK_BYTES));
  let at = from - from % BLOCK_BYTES;
  while (at < cache.length && !holds(at)) at += BLOCK_BYTES;
  if (at >= cache.length) return undefined;
  let end = at;
  while (end < cache.length && holds(end)) end += BLOCK_BYTES;
  return { at: Math.max(at, from), end: Math.min(end, cache.length) };
}

function isBlank(bytes: Uint8Array): boolean {
  return bytes.byteOffset % 8 === 0 ? isZero(bytes) : bytes.every((byte) => byte === 0);
}
