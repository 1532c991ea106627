/**
 * A volume's own files in memory, for rules that need no disk: mappings of one file share its bytes, as the
 * page cache lets them. Not promised: what a power loss would take.
 */
import type { DurableBlocks, MappedFile, VolumeFiles } from "../../src/volume/mod.ts";

export class MemoryFiles implements VolumeFiles {
  readonly #files = new Map<string, Uint8Array<ArrayBuffer>>();
  bootId = "first boot";
  #mapped = 0;

  /** Mappings that nobody has closed. */
  get mapped(): number {
    return this.#mapped;
  }

  read(path: string): Uint8Array | undefined {
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
    const bytes = this.#files.get(path);
    if (!bytes) throw new Error(`there is no file ${path}`);
    this.#mapped++;
    const sync = () => Promise.resolve();
    return { address: 0, bytes, close: () => void this.#mapped--, sync };
  }

  openBlocks(path: string): DurableBlocks {
    const bytes = this.#files.get(path);
    if (!bytes) throw new Error(`there is no file ${path}`);
    const write = (at: number, block: Uint8Array) => Promise.resolve(bytes.set(block, at));
    return { write, close: () => {} };
  }
}
