/** Memory outside V8's heap: fixed addresses that the kernel may read and write while we do other work. */
import { assert, type Memory, type MemorySource } from "../core/mod.ts";
import { errno, libc, mappedBytes, sysError } from "./libc.ts";

const PROT_READ = 1, PROT_READ_WRITE = 3;
const SC_PAGESIZE = 30;
const MAP_SHARED = 0x01, MAP_PRIVATE_ANONYMOUS = 0x22, MAP_POPULATE = 0x8000;

const MADV_POPULATE_WRITE = 23;

export type { Memory };

/** Private zeroed memory; pages cost nothing until touched. @throws {PsmaError} sys/errno-12 */
export function allocateMemory(length: number): Memory {
  return map(length, PROT_READ_WRITE, MAP_PRIVATE_ANONYMOUS, -1, 0, "map memory");
}

/** Maps a file's bytes, shared: what we write is in the page cache at once and outlives this process. */
export function mapFile(fd: number, length: number): Memory {
  return map(length, PROT_READ_WRITE, MAP_SHARED, fd, 0, "map file");
}

/** Maps memory that a driver writes and we only read: writing to it ends the process. */
export function mapReadOnly(fd: number, length: number, offset: number): Memory {
  return map(length, PROT_READ, MAP_SHARED, fd, offset, "map a device's memory");
}

/** Maps one of an io_uring's rings. */
export function mapRing(fd: number, length: number, offset: number): Memory {
  return map(length, PROT_READ_WRITE, MAP_SHARED | MAP_POPULATE, fd, offset, "map io_uring");
}

/** The region must not be used afterwards: views of it would fault. */
export function unmapMemory(memory: Memory): void {
  libc().munmap(BigInt(memory.address), BigInt(memory.bytes.length));
}

/**
 * Makes every page of a mapped region present, so that the kernel never has to while it fills one for us. What
 * cannot be made present now will be when it is touched. Linux 5.14.
 */
export function populateMemory(address: number, length: number): void {
  libc().madvise(BigInt(address), BigInt(length), MADV_POPULATE_WRITE);
}

/** Anonymous mappings, for rooms that take their memory from whoever composes them. */
export const mappedMemory: MemorySource = { allocate: allocateMemory, release: unmapMemory };

/** Bytes of a page of memory: drivers map whole ones. */
export function pageBytes(): number {
  return Number(libc().sysconf(SC_PAGESIZE));
}

/** Copies between mapped regions that do not overlap, where only addresses are known. */
export function copyMemory(to: number, from: number, length: number): void {
  libc().memcpy(BigInt(to), BigInt(from), BigInt(length));
}

function map(
  length: number,
  protection: number,
  flags: number,
  fd: number,
  offset: number,
  doing: string,
): Memory {
  assert(length > 0, "mapping is empty");
  const address = libc().mmap(0n, BigInt(length), protection, flags, fd, BigInt(offset));
  const value = BigInt(address);
  // mmap answers -errno as a huge address; MAP_FAILED is all ones.
  if (value >= 0xfffffffffffff000n || value === 0n) throw sysError(doing, errno());
  return { address: Number(value), bytes: mappedBytes(value, length) };
}
