/** A volume's own files on a real disk: durable writes go over the ring, small reads and mappings are direct. */
import { dirname } from "node:path";
import { PsmaError } from "../core/mod.ts";
import { RWF_DSYNC } from "../codec/mod.ts";
import {
  allocateMemory,
  claimFile,
  claimHolder,
  closeFile,
  fileSize,
  mapFile,
  openFile,
  type Reactor,
  releaseFile,
  sysError,
  unmapMemory,
} from "../sys/mod.ts";
import { bootId } from "./boot.ts";
import type { DurableBlocks, MappedFile, VolumeFiles } from "../volume/mod.ts";

const EIO = 5;

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

  settle(path: string): Promise<void> {
    return this.reactor.syncDirectory(dirname(path));
  }

  map(path: string): MappedFile {
    const fd = openFile(path);
    try {
      const length = fileSize(fd);
      if (length === 0) throw new PsmaError("state/empty", `Cannot map ${path}: it is empty`);
      const memory = mapFile(fd, length);
      let mapped = true;
      const close = () => {
        if (!mapped) return;
        // Once only: by then the address and the descriptor may be another mapping's.
        mapped = false;
        unmapMemory(memory);
        closeFile(fd);
      };
      const sync = async () => {
        const result = await this.reactor.fsync(fd, true);
        if (result < 0) throw sysError(`sync ${path}`, result);
      };
      return { ...memory, close, sync };
    } catch (error) {
      closeFile(fd);
      throw error;
    }
  }

  openBlocks(path: string): DurableBlocks {
    const fd = openFile(path);
    if (!claimFile(fd)) {
      closeFile(fd);
      throw new PsmaError("state/in-use", `Cannot use ${path}: another process writes to it`);
    }
    return {
      write: (at, bytes) => this.#writeDurably(fd, path, at, bytes),
      close: () => {
        // The ring may keep the file itself for a moment.
        releaseFile(fd);
        closeFile(fd);
      },
    };
  }

  async #writeDurably(fd: number, path: string, at: number, bytes: Uint8Array) {
    const memory = allocateMemory(bytes.length);
    memory.bytes.set(bytes);
    try {
      for (let done = 0; done < bytes.length;) {
        const rest = { address: memory.address + done, bytes: memory.bytes.subarray(done) };
        const length = bytes.length - done;
        const result = await this.reactor.write(fd, at + done, rest, length, RWF_DSYNC);
        // No bytes and no error: nothing would ever come of it.
        if (result <= 0) throw sysError(`write ${path}`, result === 0 ? EIO : result);
        done += result;
      }
    } finally {
      unmapMemory(memory);
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

  /** Names of the files in a directory. */
  list(directory: string): string[] {
    return Array.from(Deno.readDirSync(directory)).filter((one) => one.isFile)
      .map((one) => one.name);
  }

  /** What is not there is no error. */
  remove(path: string): Promise<void> {
    return this.reactor.removeFile(path);
  }
}
