/** NBD exports opened as a client, for programs on the main thread: whole buffers in and out. */
import { errnoText, PsmaError } from "../core/mod.ts";
import {
  type BackendCalls,
  type NbdBackend,
  openNbdBackend,
  OPERATION,
  type Operations,
} from "../backend/mod.ts";
import type { TlsSpec } from "../codec/mod.ts";
import { allocateMemory, type Reactor, unmapMemory } from "../sys/mod.ts";
import type { Ask } from "./questioner.ts";
import { withPlainUri } from "./tls/way.ts";

const MAX_DEVICES = 64;
const MAX_TRANSFER_BYTES = 16 << 20;

export class Devices {
  readonly #devices = new Map<number, NbdBackend>();
  #nextId = 1;

  constructor(
    readonly reactor: Reactor,
    readonly operations: Operations,
    readonly calls: BackendCalls,
    readonly ask: Ask,
  ) {}

  /** @throws {PsmaError} unavailable/devices, usage/nbd-uri, store/unreachable, config/tls-file */
  async open(uri: string, tls: TlsSpec = {}): Promise<{ device: number; size_bytes: number }> {
    if (this.#devices.size >= MAX_DEVICES) {
      throw new PsmaError("unavailable/devices", `Cannot open ${uri}: ${MAX_DEVICES} are open`);
    }
    const { reactor, operations } = this;
    const backend = await withPlainUri(
      { type: "nbd", uri, tls },
      this.ask,
      (way) => openNbdBackend({ ...way, reactor, operations }),
    );
    backend.setLossPolicy("hold");
    const device = this.#nextId++;
    this.#devices.set(device, backend);
    return { device, size_bytes: backend.sizeBytes };
  }

  async read(device: number, at: number, length: number): Promise<Uint8Array> {
    const backend = this.#device(device, at, length);
    const memory = allocateMemory(length);
    try {
      await this.#run(backend, OPERATION.read, at, length, memory.address);
      return memory.bytes.slice();
    } finally {
      unmapMemory(memory);
    }
  }

  async write(device: number, at: number, bytes: Uint8Array): Promise<void> {
    const backend = this.#device(device, at, bytes.length);
    const memory = allocateMemory(bytes.length);
    try {
      memory.bytes.set(bytes);
      await this.#run(backend, OPERATION.write, at, bytes.length, memory.address);
    } finally {
      unmapMemory(memory);
    }
  }

  async flush(device: number): Promise<void> {
    await this.#run(this.#device(device, 0, 1), OPERATION.flush, 0, 0, 0);
  }

  async close(device: number): Promise<void> {
    const backend = this.#device(device, 0, 1);
    this.#devices.delete(device);
    await backend.close();
  }

  /** At the end of the process: nobody waits for a server that does not answer. */
  async closeAll(): Promise<void> {
    for (const [device, backend] of [...this.#devices]) {
      backend.setLossPolicy("fail");
      backend.abort();
      await this.close(device);
    }
  }

  #device(device: number, at: number, length: number): NbdBackend {
    const backend = this.#devices.get(device);
    if (!backend) throw new PsmaError("not-found/device", `Cannot use device ${device}: not open`);
    const fits = Number.isSafeInteger(at) && at >= 0 && length > 0 &&
      length <= MAX_TRANSFER_BYTES && at + length <= backend.sizeBytes;
    if (!fits) {
      throw new PsmaError(
        "usage/extent",
        `Cannot transfer ${length} bytes at ${at}: out of bounds`,
      );
    }
    return backend;
  }

  async #run(backend: NbdBackend, code: number, at: number, length: number, address: number) {
    const errno = await this.calls.run(backend, code, { at, length, address });
    if (errno !== 0) {
      throw new PsmaError("io/device", `Cannot use ${backend.description}: ${errnoText(errno)}`);
    }
  }
}
