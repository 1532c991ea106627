/**
 * An application that writes random blocks through a volume and knows what each must hold: every block
 * carries its number and a version; a read must give the last acknowledged version, or one whose write
 * was in flight at some time during the read.
 */
import assert from "node:assert/strict";
import { OPERATION, OPERATION_FLAG } from "../../src/backend/mod.ts";
import type { Rng } from "../../src/core/mod.ts";
import type { Volume } from "../../src/volume/mod.ts";
import { type InThread, until } from "./in_thread.ts";

export const BLOCK_BYTES = 4096;

export class VerifyingWriter {
  writes = 0;
  reads = 0;
  /** Acknowledged version per block; 0: zeros. */
  readonly versions: Uint32Array;
  readonly #busy = new Set<number>();
  readonly #owner: number;
  readonly #waiting = new Map<number, (errno: number) => void>();
  #next = 1;
  #stopped = false;
  #lanes: Promise<void>[] = [];

  constructor(
    readonly thread: InThread,
    readonly volume: Volume,
    readonly rng: Rng,
    readonly blocks = Math.floor(volume.sizeBytes / BLOCK_BYTES),
  ) {
    this.versions = new Uint32Array(blocks);
    this.#owner = thread.requests.registerOwner((slot) => {
      const resolve = this.#waiting.get(slot);
      this.#waiting.delete(slot);
      thread.reactor.wake();
      resolve?.(thread.requests.errno[slot] as number);
    });
  }

  get isRunning(): boolean {
    return !this.#stopped && this.#lanes.length > 0;
  }

  /** Keeps `depth` requests in flight until `stop`. */
  start(depth: number): void {
    this.#stopped = false;
    this.#lanes = Array.from({ length: depth }, () => this.#lane());
  }

  /** Waits for so many more acknowledged writes. Throws what any lane found wrong. */
  async written(count: number): Promise<void> {
    const enough = this.writes + count;
    const reached = until(this.thread, () => this.writes >= enough, `${count} writes`);
    await Promise.race([reached, Promise.all(this.#lanes)]);
    await reached;
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await Promise.all(this.#lanes);
  }

  /** Reads every block once. */
  async verifyAll(): Promise<void> {
    for (let block = 0; block < this.blocks; block++) await this.#read(block);
  }

  async #lane(): Promise<void> {
    while (!this.#stopped) {
      const block = this.rng.below(this.blocks);
      if (this.#busy.has(block)) {
        await this.thread.reactor.sleep(0);
        continue;
      }
      this.#busy.add(block);
      const chance = this.rng.float();
      if (chance < 0.6) await this.#write(block, chance < 0.05);
      else if (chance < 0.65) await this.#zero(block);
      else if (chance < 0.7) await this.#run(OPERATION.flush, 0, 0, 0);
      else await this.#read(block);
      this.#busy.delete(block);
    }
  }

  async #write(block: number, fua: boolean): Promise<void> {
    const version = this.#next++;
    const errno = await this.#run(
      OPERATION.write,
      block * BLOCK_BYTES,
      BLOCK_BYTES,
      fua ? OPERATION_FLAG.fua : 0,
      (words) => {
        for (let i = 0; i < words.length; i += 2) {
          words[i] = version;
          words[i + 1] = block;
        }
      },
    );
    assert.equal(errno, 0, "write");
    this.versions[block] = version;
    this.writes++;
  }

  async #zero(block: number): Promise<void> {
    const code = this.rng.below(2) === 0 ? OPERATION.trim : OPERATION.writeZeroes;
    assert.equal(await this.#run(code, block * BLOCK_BYTES, BLOCK_BYTES, 0), 0, "zero");
    this.versions[block] = 0;
  }

  async #read(block: number): Promise<void> {
    const version = this.versions[block] as number;
    let found = -1;
    const errno = await this.#run(
      OPERATION.read,
      block * BLOCK_BYTES,
      BLOCK_BYTES,
      0,
      undefined,
      (words) => {
        found = words[0] as number;
        for (let i = 0; i < words.length; i += 2) {
          assert.equal(words[i], found, "torn block");
          assert.equal(words[i + 1], found === 0 ? 0 : block, "another block's bytes");
        }
      },
    );
    assert.equal(errno, 0, "read");
    assert.equal(found, version, `block ${block}`);
    this.reads++;
  }

  async #run(
    code: number,
    at: number,
    length: number,
    flags: number,
    fill?: (words: Uint32Array) => void,
    check?: (words: Uint32Array) => void,
  ): Promise<number> {
    const { requests, reactor } = this.thread;
    let slot = requests.take(this.#owner);
    while (slot < 0) {
      await reactor.sleep(0);
      slot = requests.take(this.#owner);
    }
    requests.code[slot] = code;
    requests.flags[slot] = flags;
    requests.at[slot] = at;
    requests.length[slot] = length;
    const words = new Uint32Array(
      requests.arena.bytes.buffer,
      requests.dataOffset(slot),
      length / 4,
    );
    fill?.(words);
    const { promise, resolve } = reactor.deferred<number>();
    this.#waiting.set(slot, resolve);
    this.volume.submit(slot);
    const errno = await promise;
    try {
      if (errno === 0) check?.(words);
    } finally {
      requests.release(slot);
    }
    return errno;
  }
}
