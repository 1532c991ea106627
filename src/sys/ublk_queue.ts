/**
 * The server's end of a ublk device with one queue: the descriptors that the driver maps for us, and the
 * copying of a request's data (UBLK_F_USER_COPY).
 *
 * Copying is a system call of its own and not an operation of the ring: io_uring would hand it to another
 * thread, because the driver does not say that it never waits, and it is a copy between memories.
 */
import { ublkCopyOffset, ublkDescriptorsBytes } from "../codec/mod.ts";
import { closeFile, openFile } from "./files.ts";
import { errno, libc } from "./libc.ts";
import { mapReadOnly, type Memory, pageBytes, unmapMemory } from "./memory.ts";
import { ublkServerPath } from "./ublk_control.ts";

const QUEUE = 0;

export class UblkQueue {
  readonly fd: number;
  /** The driver rewrites a tag's words before it hands the tag to us, and not until we hand it back. */
  readonly descriptors: Uint32Array;
  readonly #mapped: Memory;
  /** Made once: a bigint per call would be garbage per request. */
  readonly #offsets: readonly bigint[];
  readonly #pread: ReturnType<typeof libc>["preadNow"];
  readonly #pwrite: ReturnType<typeof libc>["pwriteNow"];

  /** @throws {PsmaError} sys/permission, sys/errno-16 while another process serves the device, sys/errno-N. */
  constructor(device: number, readonly depth: number) {
    this.fd = openFile(ublkServerPath(device));
    try {
      this.#mapped = mapReadOnly(this.fd, ublkDescriptorsBytes(depth, pageBytes()), 0);
    } catch (error) {
      closeFile(this.fd);
      throw error;
    }
    this.descriptors = new Uint32Array(this.#mapped.bytes.buffer);
    this.#offsets = Array.from({ length: depth }, (_, tag) => BigInt(ublkCopyOffset(QUEUE, tag)));
    this.#pread = libc().preadNow;
    this.#pwrite = libc().pwriteNow;
  }

  /** Hot path. A WRITE's data. @param into address of a buffer of ours. @returns bytes copied, or a negative errno. */
  copyOut(tag: number, into: bigint, length: number): number {
    const result = this.#pread(this.fd, into, length, this.#offsets[tag] as bigint);
    return result < 0 ? -errno() : result;
  }

  /** Hot path. A READ's data. @param from address of a buffer of ours. @returns bytes copied, or a negative errno. */
  copyIn(tag: number, from: bigint, length: number): number {
    const result = this.#pwrite(this.fd, from, length, this.#offsets[tag] as bigint);
    return result < 0 ? -errno() : result;
  }

  /** Only after every tag has come back: the device cannot be served any more. */
  close(): void {
    unmapMemory(this.#mapped);
    closeFile(this.fd);
  }
}
