/** Single operations on a backend as promises over bytes: for tests that look at what it holds. */
import assert from "node:assert/strict";
import { type Backend, OPERATION, OPERATION_FLAG } from "../../src/backend/mod.ts";
import type { InThread } from "./in_thread.ts";

export interface Placed {
  readonly at: number;
  readonly fua?: boolean;
  /** Bytes to add to the memory's address, which is a page's: as memory that nobody aligned. */
  readonly skew?: number;
}

export class BackendIo {
  constructor(readonly thread: InThread, readonly backend: Backend) {}

  /** @returns the errno. */
  async tryWrite({ at, fua = false, skew = 0 }: Placed, bytes: Uint8Array): Promise<number> {
    return await this.#withMemory(bytes.length + skew, async (address, memory) => {
      memory.set(bytes, skew);
      return await this.thread.calls.run(this.backend, OPERATION.write, {
        at,
        length: bytes.length,
        address: address + skew,
        flags: fua ? OPERATION_FLAG.fua : 0,
      });
    });
  }

  async write(placed: Placed, bytes: Uint8Array): Promise<void> {
    assert.equal(await this.tryWrite(placed, bytes), 0, `write ${bytes.length} at ${placed.at}`);
  }

  /** @returns the errno, or the bytes. */
  async tryRead({ at, skew = 0 }: Placed, length: number): Promise<number | Uint8Array> {
    return await this.#withMemory(length + skew, async (address, memory) => {
      memory.fill(0xee);
      const errno = await this.thread.calls.run(this.backend, OPERATION.read, {
        at,
        length,
        address: address + skew,
      });
      return errno === 0 ? memory.slice(skew, skew + length) : errno;
    });
  }

  async read(placed: Placed, length: number): Promise<Uint8Array> {
    const bytes = await this.tryRead(placed, length);
    assert.ok(bytes instanceof Uint8Array, `read ${length} at ${placed.at}: errno ${bytes}`);
    return bytes;
  }

  /** Makes a range read as zeros. */
  async zero(
    kind: "trim" | "writeZeroes",
    { at, length, flags = 0 }: { at: number; length: number; flags?: number },
  ): Promise<void> {
    assert.equal(await this.tryZero(kind, { at, length, flags }), 0, `${kind} ${length} at ${at}`);
  }

  /** @returns the errno. */
  async tryZero(
    kind: "trim" | "writeZeroes",
    { at, length, flags = 0 }: { at: number; length: number; flags?: number },
  ): Promise<number> {
    const given = { at, length, address: 0, flags };
    return await this.thread.calls.run(this.backend, OPERATION[kind], given);
  }

  async flush(): Promise<void> {
    assert.equal(await this.thread.calls.flush(this.backend), 0, "flush");
  }

  async #withMemory<T>(
    length: number,
    use: (address: number, bytes: Uint8Array) => Promise<T>,
  ): Promise<T> {
    const memory = this.thread.memory.allocate(Math.max(length, 1));
    try {
      return await use(memory.address, memory.bytes);
    } finally {
      this.thread.memory.release(memory);
    }
  }
}
