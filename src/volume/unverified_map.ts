/**
 * Which chunks of a mirror were written through and not compared since, one bit per chunk. A copy is checked by
 * its digest when it is made; a write that goes to both sides is not, so its chunk stands here until a
 * comparison of both sides has passed over it without another write.
 *
 * In a mapped file it is exact after a kill. After another boot the write-intent log tells where it may lack
 * something; without the log, or without its own file, every chunk is unverified.
 * Hot path: marking allocates nothing.
 */
import {
  decodeUnverifiedHeader,
  encodeUnverifiedHeader,
  UNVERIFIED_HEADER_BYTES,
  unverifiedMapBytes,
} from "../codec/mod.ts";
import { clearBit, countBits, hasBit, nextBit, setBit, setFirst } from "./bitmap.ts";
import type { MappedFile, VolumeFiles } from "./files.ts";

export class UnverifiedMap {
  readonly chunks: number;
  readonly #words: Uint32Array;
  readonly #file: MappedFile | undefined;
  #count: number;

  private constructor(chunks: number, words: Uint32Array, file?: MappedFile) {
    this.chunks = chunks;
    this.#words = words;
    this.#file = file;
    this.#count = countBits(words);
  }

  /** Without a file: nothing is unverified yet, and nothing outlives this process. */
  static inMemory(chunks: number): UnverifiedMap {
    return new UnverifiedMap(chunks, new Uint32Array(Math.ceil(chunks / 32)));
  }

  /** Makes the file, replacing what was there, and opens it. @param all every chunk is unverified. */
  static async create(
    files: VolumeFiles,
    path: string,
    chunks: number,
    { all }: { all: boolean },
  ): Promise<UnverifiedMap> {
    const bytes = new Uint8Array(unverifiedMapBytes(chunks));
    bytes.set(encodeUnverifiedHeader({ chunks, boot_id: files.bootId }));
    if (all) setFirst(new Uint32Array(bytes.buffer, UNVERIFIED_HEADER_BYTES), chunks);
    await files.replace(path, bytes);
    return UnverifiedMap.#map(files.map(path), chunks);
  }

  /**
   * @param hot chunks of which, after another boot, the file may say less than is true; undefined: all.
   * @returns undefined when the file says nothing: it is of another number of chunks, or of another boot and
   * `hot` is not known. @throws {PsmaError} state/unverified-map, sys/...
   */
  static open(
    files: VolumeFiles,
    path: string,
    chunks: number,
    hot?: Iterable<number>,
  ): UnverifiedMap | undefined {
    const file = files.map(path);
    try {
      const header = decodeUnverifiedHeader(file.bytes), isOurs = header.boot_id === files.bootId;
      if (header.chunks === chunks && (isOurs || hot)) {
        const map = UnverifiedMap.#map(file, chunks);
        if (isOurs) return map;
        for (const chunk of hot ?? []) map.mark(chunk);
        // Last: until then the file is another boot's.
        file.bytes.set(encodeUnverifiedHeader({ chunks, boot_id: files.bootId }));
        return map;
      }
    } catch (error) {
      file.close();
      throw error;
    }
    file.close();
    return undefined;
  }

  static #map(file: MappedFile, chunks: number): UnverifiedMap {
    const { buffer, byteOffset } = file.bytes;
    const words = new Uint32Array(
      buffer,
      byteOffset + UNVERIFIED_HEADER_BYTES,
      Math.ceil(chunks / 32),
    );
    return new UnverifiedMap(chunks, words, file);
  }

  /** Chunks that are unverified. */
  get count(): number {
    return this.#count;
  }

  has(chunk: number): boolean {
    return hasBit(this.#words, chunk);
  }

  /** Hot path. */
  mark(chunk: number): void {
    if (hasBit(this.#words, chunk)) return;
    setBit(this.#words, chunk);
    this.#count++;
  }

  clear(chunk: number): void {
    if (!hasBit(this.#words, chunk)) return;
    clearBit(this.#words, chunk);
    this.#count--;
  }

  /** The first unverified chunk at or after `from`, or -1. */
  next(from: number): number {
    return nextBit(this.#words, from, this.chunks);
  }

  /** Makes durable what is marked. @throws {PsmaError} sys/... */
  async sync(): Promise<void> {
    await this.#file?.sync();
  }

  close(): void {
    this.#file?.close();
  }
}
