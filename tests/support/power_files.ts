/**
 * A volume's own files on a disk whose every operation ends when, and as, it is told to. It knows everything
 * that a power loss could leave: each bit of a mapped file may be as it was at any moment since the last sync
 * began, and of a block under way, or one that failed, any sectors are there.
 */
import type { DurableBlocks, MappedFile, VolumeFiles } from "../../src/volume/mod.ts";

const SECTOR_BYTES = 512;

/** Something under way. */
export interface Pending {
  readonly name: string;
  /** @param succeeds @param sectors of a block that fails: a bit for each that is written all the same. */
  end(succeeds: boolean, sectors: number): void;
}

class WatchedBytes {
  /** Bits that may be found clear. */
  zeros: Uint32Array;
  readonly #words: Uint32Array;
  #sinceSync: WatchedBytes | undefined;

  constructor(readonly bytes: Uint8Array<ArrayBuffer>) {
    this.#words = new Uint32Array(bytes.buffer);
    this.zeros = this.#words.map((word) => ~word);
  }

  /** To be called after every step. */
  observe(): void {
    const words = this.#words, zeros = this.zeros;
    for (let i = 0; i < words.length; i++) zeros[i] = (zeros[i] as number) | ~(words[i] as number);
    this.#sinceSync?.observe();
  }

  beginSync(): void {
    this.#sinceSync = new WatchedBytes(this.bytes);
  }

  endSync(succeeded: boolean): void {
    const since = this.#sinceSync;
    this.#sinceSync = undefined;
    if (succeeded && since) this.zeros = since.zeros;
  }
}

export class PowerFiles implements VolumeFiles {
  readonly bootId = "a boot";
  readonly pending: Pending[] = [];
  readonly #files = new Map<string, Uint8Array<ArrayBuffer>>();
  readonly #watched = new Map<string, WatchedBytes>();
  #block: { path: string; at: number; bytes: Uint8Array } | undefined;

  read(path: string): Uint8Array<ArrayBuffer> | undefined {
    return this.#files.get(path)?.slice();
  }

  replace(path: string, bytes: Uint8Array): Promise<void> {
    this.#files.set(path, new Uint8Array(bytes));
    return Promise.resolve();
  }

  settle(): Promise<void> {
    return Promise.resolve();
  }

  map(path: string): MappedFile {
    const watched = new WatchedBytes(this.#files.get(path) as Uint8Array<ArrayBuffer>);
    this.#watched.set(path, watched);
    const sync = () => {
      watched.beginSync();
      return this.operation("sync", (succeeds) => watched.endSync(succeeds));
    };
    return { address: 0, bytes: watched.bytes, close: () => {}, sync };
  }

  openBlocks(path: string): DurableBlocks {
    const write = (at: number, bytes: Uint8Array) => {
      this.#block = { path, at, bytes };
      return this.operation("write", (succeeds, sectors) => {
        this.#put(this.#files.get(path) as Uint8Array, at, bytes, succeeds ? 255 : sectors);
        this.#block = undefined;
      });
    };
    return { write, close: () => {} };
  }

  /** Something that ends when it is told to. */
  operation(name: string, onEnd: (succeeds: boolean, sectors: number) => void): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.pending.push({
      name,
      end: (succeeds, sectors) => {
        onEnd(succeeds, sectors);
        if (succeeds) resolve();
        else reject(new Error(`the disk failed a ${name}`));
      },
    });
    return promise;
  }

  observe(): void {
    for (const watched of this.#watched.values()) watched.observe();
  }

  /** Bits of a mapped file that a power loss now may leave clear. */
  mayBeClear(path: string): Uint8Array {
    return new Uint8Array((this.#watched.get(path) as WatchedBytes).zeros.buffer);
  }

  /** The file of blocks after a power loss now, `sectors` of a block under way being written. */
  afterPowerLoss(path: string, sectors: number): Uint8Array {
    const bytes = this.read(path) as Uint8Array;
    if (this.#block?.path === path) this.#put(bytes, this.#block.at, this.#block.bytes, sectors);
    return bytes;
  }

  #put(file: Uint8Array, at: number, block: Uint8Array, sectors: number) {
    for (let from = 0; from < block.length; from += SECTOR_BYTES) {
      if ((sectors & (1 << (from / SECTOR_BYTES))) === 0) continue;
      file.set(block.subarray(from, from + SECTOR_BYTES), at + from);
    }
  }
}
