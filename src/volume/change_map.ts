/**
 * What a mirror's target lacks, one bit per chunk, in a mapped file: exact after the process was killed,
 * because the pages belong to the kernel. After another boot the pages may be older than the data they speak
 * of: then everything is doubtful, or what the write-intent log tells (`intent_log.ts`).
 *
 * Planes:
 * - `dirty`: the target lacks what the source has in this chunk.
 * - `unstable`, two generations: the chunk was written to the target and not flushed there since. A flush
 *   closes the current generation when it begins and clears it when it succeeded; a write meanwhile goes to
 *   the other one. Whoever opens the map after a crash, or loses the target, turns unstable into dirty.
 *
 * - `doubtful`, of those that are dirty: both sides may be equal there, so they are compared before anything is
 *   sent. Never on its own: what is doubtful is dirty, so a doubt that is lost costs a copy, nothing else. A
 *   write ends the doubt. A file of version 1 keeps its doubts in this process alone.
 *
 * So a chunk is clean only when the target is known to hold it durably, and a kill between clearing a dirty
 * bit and completing the copy leaves the unstable bit behind.
 * Hot path: marking allocates nothing.
 */
import { assert, PsmaError } from "../core/mod.ts";
import {
  CHANGE_MAP_HEADER_BYTES,
  changeMapBytes,
  type ChangeMapHeader,
  changeMapPlanes,
  decodeChangeMapHeader,
  encodeChangeMapHeader,
  planeBytes,
} from "../codec/mod.ts";
import { addAll, clearBit, countBits, hasBit, nextBit, setBit, setFirst } from "./bitmap.ts";
import type { MappedFile, VolumeFiles } from "./files.ts";
import type { Range } from "./range.ts";

export const CHUNK_BYTES = 65_536;

export class ChangeMap {
  readonly chunks: number;
  readonly chunkBytes: number;
  readonly #file: MappedFile;
  readonly #dirty: Uint32Array;
  readonly #unstable: readonly [Uint32Array, Uint32Array];
  readonly #doubtful: Uint32Array;
  #generation: 0 | 1 = 0;
  #dirtyChunks: number;
  #doubtfulChunks: number;
  #flushing = false;

  private constructor(file: MappedFile, header: ChangeMapHeader) {
    const { chunk_bytes, chunks } = header;
    this.chunks = chunks;
    this.chunkBytes = chunk_bytes;
    this.#file = file;
    const plane = (index: number) =>
      new Uint32Array(
        file.bytes.buffer,
        file.bytes.byteOffset + CHANGE_MAP_HEADER_BYTES + index * planeBytes(chunks),
        planeBytes(chunks) / 4,
      );
    this.#dirty = plane(0);
    this.#unstable = [plane(1), plane(2)];
    this.#doubtful = changeMapPlanes(header) > 3 ? plane(3) : new Uint32Array(this.#dirty.length);
    this.#dirtyChunks = countBits(this.#dirty);
    this.#doubtfulChunks = countBits(this.#doubtful);
  }

  /** Makes a map for `sizeBytes`, replacing what was there, and opens it. @param doubtful every chunk is. */
  static async create(
    files: VolumeFiles,
    path: string,
    sizeBytes: number,
    { doubtful = false }: { doubtful?: boolean } = {},
  ): Promise<ChangeMap> {
    const chunks = Math.ceil(sizeBytes / CHUNK_BYTES), boot_id = files.bootId;
    const bytes = new Uint8Array(changeMapBytes({ chunks }));
    bytes.set(encodeChangeMapHeader({ chunk_bytes: CHUNK_BYTES, chunks, boot_id }));
    if (doubtful) {
      for (const plane of [0, 3]) {
        const at = CHANGE_MAP_HEADER_BYTES + plane * planeBytes(chunks);
        setFirst(new Uint32Array(bytes.buffer, at), chunks);
      }
    }
    await files.replace(path, bytes);
    return ChangeMap.open(files, path);
  }

  /**
   * Opens an existing map; what was unstable is dirty now.
   * @param hotIn after another boot: where a map of so many bytes may be wrong; undefined: everywhere.
   * @throws {PsmaError} state/change-map, sys/...
   */
  static open(
    files: VolumeFiles,
    path: string,
    hotIn: (sizeBytes: number) => readonly Range[] | undefined = () => undefined,
  ): ChangeMap {
    const file = files.map(path);
    try {
      const header = decodeChangeMapHeader(file.bytes);
      if (file.bytes.length < changeMapBytes(header)) throw shortMap(path);
      const map = new ChangeMap(file, header);
      map.unstableToDirty();
      if (header.boot_id !== files.bootId) {
        map.#doubt({ ...header, boot_id: files.bootId }, hotIn(map.sizeBytes));
      }
      return map;
    } catch (error) {
      file.close();
      throw error;
    }
  }

  /** The pages come from another boot. The header is changed last: until then they are doubted again. */
  #doubt(header: ChangeMapHeader, hot: readonly Range[] = [{ at: 0, length: this.sizeBytes }]) {
    for (const { at, length } of hot) this.markDoubtful(at, length);
    this.#file.bytes.set(encodeChangeMapHeader(header));
  }

  /** Of what it speaks of; its last chunk may reach beyond the volume. */
  get sizeBytes(): number {
    return this.chunks * this.chunkBytes;
  }

  get dirtyChunks(): number {
    return this.#dirtyChunks;
  }

  get dirtyBytes(): number {
    return this.#dirtyChunks * this.chunkBytes;
  }

  get doubtfulBytes(): number {
    return this.#doubtfulChunks * this.chunkBytes;
  }

  /** Hot path. The target lacks every chunk that [at, at + length) touches. @returns chunks newly dirty. */
  markDirty(at: number, length: number): number {
    const end = Math.floor((at + length - 1) / this.chunkBytes);
    let fresh = 0;
    for (let chunk = Math.floor(at / this.chunkBytes); chunk <= end; chunk++) {
      if (hasBit(this.#dirty, chunk)) continue;
      setBit(this.#dirty, chunk);
      fresh++;
    }
    this.#dirtyChunks += fresh;
    this.#endDoubt(at, length);
    return fresh;
  }

  /**
   * Nobody knows whether the target holds what the source has in the chunks that [at, at + length) touches:
   * they are dirty, and compared before they are copied.
   */
  markDoubtful(at: number, length: number): void {
    this.markDirty(at, length);
    const end = Math.floor((at + length - 1) / this.chunkBytes);
    for (let chunk = Math.floor(at / this.chunkBytes); chunk <= end; chunk++) {
      setBit(this.#doubtful, chunk);
      this.#doubtfulChunks++;
    }
  }

  /** Both sides were seen to be equal there, though the target may not have flushed it. */
  markEqual(at: number, length: number): void {
    this.beginCopy(at, length);
  }

  /** Hot path. What was written or copied there is known from now on. */
  #endDoubt(at: number, length: number) {
    if (this.#doubtfulChunks === 0) return;
    const end = Math.floor((at + length - 1) / this.chunkBytes);
    for (let chunk = Math.floor(at / this.chunkBytes); chunk <= end; chunk++) {
      if (!hasBit(this.#doubtful, chunk)) continue;
      clearBit(this.#doubtful, chunk);
      this.#doubtfulChunks--;
    }
  }

  /** Hot path. Says, before the write is sent, that the target may hold something un-flushed there. */
  markUnstable(at: number, length: number): void {
    const plane = this.#unstable[this.#generation];
    const end = Math.floor((at + length - 1) / this.chunkBytes);
    for (let chunk = Math.floor(at / this.chunkBytes); chunk <= end; chunk++) setBit(plane, chunk);
  }

  /** Before the copier reads [at, at + length): unstable first, then neither doubtful nor dirty. */
  beginCopy(at: number, length: number): void {
    this.markUnstable(at, length);
    this.#endDoubt(at, length);
    const end = Math.floor((at + length - 1) / this.chunkBytes);
    for (let chunk = Math.floor(at / this.chunkBytes); chunk <= end; chunk++) {
      if (!hasBit(this.#dirty, chunk)) continue;
      clearBit(this.#dirty, chunk);
      this.#dirtyChunks--;
    }
  }

  /** True when the target may hold something un-flushed in [at, at + length). */
  isUnstable(at: number, length: number): boolean {
    const last = Math.min(this.chunks - 1, Math.floor((at + length - 1) / this.chunkBytes));
    const [one, other] = this.#unstable;
    for (let chunk = Math.floor(at / this.chunkBytes); chunk <= last; chunk++) {
      const word = chunk >>> 5, bits = (one[word] as number) | (other[word] as number);
      if (bits === 0) chunk |= 31;
      else if (bits & (1 << (chunk & 31))) return true;
    }
    return false;
  }

  isDirty(chunk: number): boolean {
    return hasBit(this.#dirty, chunk);
  }

  isDoubtful(chunk: number): boolean {
    return hasBit(this.#doubtful, chunk);
  }

  /** The first dirty chunk at or after `from`, or -1. */
  nextDirty(from: number): number {
    return nextBit(this.#dirty, from, this.chunks);
  }

  /** The first doubtful chunk at or after `from`, or -1. */
  nextDoubtful(from: number): number {
    return this.#doubtfulChunks === 0 ? -1 : nextBit(this.#doubtful, from, this.chunks);
  }

  /**
   * Closes the current generation of unstable chunks: call right before the target is flushed, then mark
   * again what is still in flight, then `flushed` with how it went.
   */
  beginFlush(): void {
    assert(!this.#flushing, "one flush of the target at a time");
    this.#flushing = true;
    this.#generation = this.#generation === 0 ? 1 : 0;
  }

  /** The flush ended: on success the closed generation is stable, else it joins the open one. */
  flushed(succeeded: boolean): void {
    assert(this.#flushing, "no flush was begun");
    this.#flushing = false;
    const closed = this.#unstable[this.#generation === 0 ? 1 : 0];
    if (!succeeded) {
      addAll(this.#unstable[this.#generation], closed);
    }
    closed.fill(0);
  }

  /** The target may have lost what was not flushed: copy it again. */
  unstableToDirty(): void {
    const [first, second] = this.#unstable;
    addAll(this.#dirty, first);
    addAll(this.#dirty, second);
    this.#dirtyChunks = countBits(this.#dirty);
    // Left standing until a flush clears them: clearing here could race a crash between the two stores.
  }

  /** Nothing of the volume is there: what is doubted as a whole, is so up to its end. @param first chunk */
  forgetFrom(first: number): void {
    const beyond = (this.chunks - first) * this.chunkBytes;
    if (beyond > 0) this.#endDoubt(first * this.chunkBytes, beyond);
    for (let chunk = this.nextDirty(first); chunk >= 0; chunk = this.nextDirty(chunk + 1)) {
      clearBit(this.#dirty, chunk);
      this.#dirtyChunks--;
    }
  }

  /** Makes every bit durable as it is when called, or as it is set later. @throws {PsmaError} sys/... */
  sync(): Promise<void> {
    return this.#file.sync();
  }

  close(): void {
    this.#file.close();
  }
}

function shortMap(path: string): PsmaError {
  return new PsmaError("state/change-map", `Cannot read ${path}: the file is cut short`, {
    hint: "Cancel the mirror and start it again; the volume itself is not affected.",
  });
}
