/**
 * An application on an NBD export, through the built-in client: writes random blocks, reads them back, and
 * knows what every block must hold. Operations that a lost connection holds back count as one operation.
 */
import assert from "node:assert/strict";
import type { DataPlane } from "../../src/dataplane/mod.ts";
import type { Rng } from "../../src/core/mod.ts";

const BLOCK_BYTES = 4096;

export class DeviceWriter {
  writes = 0;
  reads = 0;
  /** What a lane found wrong first; `stop` throws it. */
  failure: Error | undefined;
  readonly #versions: Uint32Array;
  readonly #busy = new Set<number>();
  #next = 1;
  #stopped = false;
  #lanes: Promise<void>[] = [];

  private constructor(
    readonly plane: DataPlane,
    readonly device: number,
    readonly blocks: number,
    readonly rng: Rng,
  ) {
    this.#versions = new Uint32Array(blocks);
  }

  static async open(plane: DataPlane, uri: string, rng: Rng): Promise<DeviceWriter> {
    const { device, size_bytes } = await plane.command("openDevice", { uri });
    return new DeviceWriter(plane, device, Math.floor(size_bytes / BLOCK_BYTES), rng);
  }

  start(depth: number): void {
    this.#stopped = false;
    this.#lanes = Array.from({ length: depth }, () => this.#lane());
    // Thrown by `stop`: until then a lane that failed must not hide what made the test fail.
    for (const lane of this.#lanes) lane.catch((error) => this.failure ??= error);
  }

  /** Throws what any lane found wrong. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await Promise.all(this.#lanes);
  }

  async verifyAll(): Promise<void> {
    for (let block = 0; block < this.blocks; block++) await this.#read(block);
  }

  async close(): Promise<void> {
    await this.plane.command("closeDevice", { device: this.device });
  }

  async #lane(): Promise<void> {
    while (!this.#stopped) {
      const block = this.rng.below(this.blocks);
      if (this.#busy.has(block)) {
        // Another lane has it; let that one go on.
        await Promise.resolve();
        if (this.#busy.size >= this.blocks) await new Promise((resume) => setTimeout(resume, 0));
        continue;
      }
      this.#busy.add(block);
      const chance = this.rng.float();
      if (chance < 0.65) await this.#write(block);
      else if (chance < 0.7) await this.plane.command("flushDevice", { device: this.device });
      else await this.#read(block);
      this.#busy.delete(block);
    }
  }

  async #write(block: number): Promise<void> {
    const version = this.#next++;
    const words = new Uint32Array(BLOCK_BYTES / 4);
    for (let i = 0; i < words.length; i += 2) {
      words[i] = version;
      words[i + 1] = block;
    }
    const bytes = new Uint8Array(words.buffer);
    await this.plane.command("writeDevice", {
      device: this.device,
      at: block * BLOCK_BYTES,
      bytes,
    });
    this.#versions[block] = version;
    this.writes++;
  }

  async #read(block: number): Promise<void> {
    const version = this.#versions[block] as number;
    const bytes = await this.plane.command("readDevice", {
      device: this.device,
      at: block * BLOCK_BYTES,
      length: BLOCK_BYTES,
    });
    const words = new Uint32Array(bytes.buffer, bytes.byteOffset, BLOCK_BYTES / 4);
    for (let i = 0; i < words.length; i += 2) {
      assert.equal(words[i], version, `block ${block}, word ${i}: version`);
      assert.equal(words[i + 1], version === 0 ? 0 : block, `block ${block}, word ${i}: number`);
    }
    this.reads++;
  }
}
