/**
 * The calls of a kernel that the data plane makes besides the ring's: memory, descriptors, quick file and
 * socket calls, on a virtual machine. An address is a region's number times REGION_STRIDE plus an offset.
 */
import { assert } from "../../src/core/mod.ts";
import { type Kernel, useKernel } from "../../src/sys/mod.ts";
import { zeros } from "../../src/backend/zeros.ts";
import { nextData, type VirtualDisk, type VirtualFile } from "./disk.ts";
import type { VirtualSocket } from "./network.ts";

const REGION_STRIDE = 2 ** 30;
const O_CREAT = 0o100, O_TRUNC = 0o1000;
const SEEK_END = 2, SEEK_DATA = 3, SEEK_HOLE = 4;
const ENOENT = 2, EBADF = 9, ENXIO = 6;
const MAP_SHARED = 1;

export type Descriptor =
  | { readonly kind: "file"; readonly file: VirtualFile; readonly path: string }
  | { readonly kind: "directory" }
  | { readonly kind: "socket"; readonly socket: VirtualSocket };

/** Regions that outlive a machine: what the rooms keep for the whole thread. */
const shared: Uint8Array<ArrayBuffer>[] = [new Uint8Array(0)];

export class VirtualKernel implements Kernel {
  errno = 0;
  /** A dead process changes nothing any more. */
  frozen = false;
  readonly #regions: (Uint8Array<ArrayBuffer> | undefined)[] = [...shared];
  readonly #descriptors = new Map<number, Descriptor>();
  readonly #mappings = new Map<number, VirtualFile>();
  #nextFd = 3;

  /** @param openSocket makes a socket that is not connected. */
  constructor(readonly disk: VirtualDisk, readonly openSocket: () => VirtualSocket) {}

  // ---- Memory ----

  mapping(address: number, length: number): Uint8Array<ArrayBuffer> {
    const bytes = this.#regions[address / REGION_STRIDE];
    assert(bytes?.length === length, "a mapping is not there");
    return bytes;
  }

  /** The bytes at an address, wherever in a region it lies. */
  bytesAt(address: number, length: number): Uint8Array<ArrayBuffer> {
    const region = this.#regions[Math.floor(address / REGION_STRIDE)];
    const offset = address % REGION_STRIDE;
    if (!region || offset + length > region.length) {
      throw new Error(`memory access out of bounds: ${length} bytes at ${address}`);
    }
    return region.subarray(offset, offset + length);
  }

  #map(bytes: Uint8Array<ArrayBuffer>): bigint {
    const address = (this.#regions.push(bytes) - 1) * REGION_STRIDE;
    return BigInt(address);
  }

  #unmap(address: bigint): number {
    const region = Number(address) / REGION_STRIDE;
    const file = this.#mappings.get(region);
    if (file) this.#detach(region, file);
    if (region >= shared.length) this.#regions[region] = undefined;
    return 0;
  }

  /** The file keeps the pages as they are now; whoever still has the memory writes into nothing. */
  #detach(region: number, file: VirtualFile) {
    file.cache = file.cache.slice();
    this.#mappings.delete(region);
  }

  // ---- Descriptors ----

  descriptor(fd: number): Descriptor | undefined {
    return this.#descriptors.get(fd);
  }

  /** Opens a path. @returns a descriptor or a negative errno. */
  openPath(path: string, flags: number): number {
    let file = this.disk.find(path);
    if (path.endsWith("/volume")) return this.#add({ kind: "directory" });
    if (!file && (flags & O_CREAT) === 0) return -ENOENT;
    file ??= this.disk.create(path);
    if ((flags & O_TRUNC) !== 0) file.resize(0);
    return this.#add({ kind: "file", file, path });
  }

  #add(descriptor: Descriptor): number {
    this.#descriptors.set(this.#nextFd, descriptor);
    return this.#nextFd++;
  }

  #file(fd: number): VirtualFile | undefined {
    const descriptor = this.#descriptors.get(fd);
    if (descriptor?.kind === "file") return descriptor.file;
    this.errno = EBADF;
    return undefined;
  }

  #close(fd: number): number {
    const descriptor = this.#descriptors.get(fd);
    this.#descriptors.delete(fd);
    if (descriptor?.kind === "socket") descriptor.socket.close();
    return 0;
  }

  #seek(fd: number, offset: number, whence: number): number {
    const file = this.#file(fd);
    if (!file) return -1;
    if (whence === SEEK_END) return file.cache.length;
    assert(whence === SEEK_DATA || whence === SEEK_HOLE, "an unknown way to seek");
    const run = nextData(file, offset);
    if (whence === SEEK_HOLE) return run?.at === offset ? run.end : offset;
    if (run) return run.at;
    this.errno = ENXIO;
    return -1;
  }

  /** The process is gone: its descriptors close, its mappings go, files keep their pages. */
  endProcess(): void {
    for (const fd of [...this.#descriptors.keys()]) this.#close(fd);
    for (const [region, file] of [...this.#mappings]) this.#detach(region, file);
  }

  readonly calls: Kernel["calls"] = {
    mmap: (_at, length, _protection, flags, fd) => {
      if (flags !== MAP_SHARED) return this.#map(new Uint8Array(Number(length)));
      const file = this.#file(fd);
      if (!file) return -1n;
      file.mapped = true;
      const address = this.#map(file.cache);
      this.#mappings.set(Number(address) / REGION_STRIDE, file);
      return address;
    },
    munmap: (address) => this.#unmap(address),
    madvise: () => 0,
    memcpy: (to, from, length) => {
      const bytes = Number(length);
      this.bytesAt(Number(to), bytes).set(this.bytesAt(Number(from), bytes));
    },
    open: (path, flags) => this.#answer(this.openPath(textOf(path), flags)),
    close: (fd) => this.#close(fd),
    lseek: (fd, offset, whence) => BigInt(this.#seek(fd, Number(offset), whence)),
    ftruncate: (fd, length) => {
      const file = this.#file(fd);
      if (!file) return -1;
      if (!this.frozen) file.resize(Number(length));
      return 0;
    },
    fstat: (fd, into) => {
      const file = this.#file(fd);
      if (!file) return -1;
      const { buffer, byteOffset } = into as Uint8Array;
      new DataView(buffer, byteOffset).setBigInt64(64, BigInt(file.cache.length) / 512n, true);
      return 0;
    },
    // A disk's file system: its magic number is not one of memory.
    fstatfs: () => 0,
    flock: () => 0,
    socket: () => this.#add({ kind: "socket", socket: this.openSocket() }),
    setsockopt: () => 0,
    shutdown: (fd) => {
      const descriptor = this.#descriptors.get(fd);
      if (descriptor?.kind === "socket") descriptor.socket.shutdown();
      return 0;
    },
  };

  #answer(result: number): number {
    if (result >= 0) return result;
    this.errno = -result;
    return -1;
  }
}

/** Text of a C string. */
export function textOf(bytes: unknown): string {
  const text = new TextDecoder().decode(bytes as Uint8Array<ArrayBuffer>);
  return text.slice(0, text.indexOf("\0"));
}

/** What the rooms allocate once for the thread lives in regions that every machine has. */
function shareThreadMemory() {
  const adopt = (length: number) => {
    shared.push(new Uint8Array(length));
    return BigInt((shared.length - 1) * REGION_STRIDE);
  };
  useKernel({
    errno: 0,
    calls: { mmap: (_at, length) => adopt(Number(length)) },
    mapping: (address) => shared[address / REGION_STRIDE] as Uint8Array<ArrayBuffer>,
  });
  zeros();
  useKernel(undefined);
}

shareThreadMemory();
