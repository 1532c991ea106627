/** A volume's own files on a real disk: durable writes go over the ring, small reads and mappings are direct. */
import { PsmaError } from "../core/mod.ts";
import {
  claimFile,
  claimHolder,
  closeFile,
  fileSize,
  mapFile,
  openFile,
  type Reactor,
  releaseFile,
  unmapMemory,
} from "../sys/mod.ts";
import { bootId } from "./boot.ts";
import type { MappedFile, VolumeFiles } from "../volume/mod.ts";

export class DiskFiles implements VolumeFiles {
  readonly bootId = bootId();

  constructor(readonly reactor: Reactor) {}

  read(path: string): Uint8Array | undefined {
    try {
      return Deno.readFileSync(path);
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return undefined;
      throw error;
    }
  }

  replace(path: string, bytes: Uint8Array): Promise<void> {
    return this.reactor.replaceFile(path, bytes);
  }

  map(path: string): MappedFile {
    const fd = openFile(path);
    try {
      const length = fileSize(fd);
      if (length === 0) throw new PsmaError("state/empty", `Cannot map ${path}: it is empty`);
      const memory = mapFile(fd, length);
      let mapped = true;
      const close = () => {
        // Once only: by then the address may be another mapping's.
        if (mapped) unmapMemory(memory);
        mapped = false;
      };
      return { ...memory, close };
    } finally {
      closeFile(fd);
    }
  }

  /**
   * Claims a file for one user, and makes it where it is missing. Undone when it is disposed of, or by the
   * kernel when the process ends.
   * @returns the process that has it, 0 when the kernel does not tell which.
   */
  claim(path: string): Disposable | number {
    const fd = openFile(path, { create: true });
    if (!claimFile(fd)) {
      const holder = claimHolder(fd) ?? 0;
      closeFile(fd);
      return holder;
    }
    return {
      [Symbol.dispose]() {
        releaseFile(fd);
        closeFile(fd);
      },
    };
  }

  /** With those above it; one that is there is no error. */
  makeDirectory(path: string): void {
    Deno.mkdirSync(path, { recursive: true, mode: 0o700 });
  }

  /** What is not there is no error. */
  remove(path: string): void {
    try {
      Deno.removeSync(path);
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }
}
