/** Quick file and socket calls that rooms above need besides the ring. */
import { decodeClaims } from "../codec/mod.ts";
import { cString, errno, libc, sysError } from "./libc.ts";

const O_RDONLY = 0, O_RDWR = 2, O_CREAT = 0o100, O_EXCL = 0o200, O_CLOEXEC = 0o2000000;
const O_DIRECT = Deno.build.arch === "aarch64" ? 0o200000 : 0o40000;
const LOCK_UN = 8, LOCK_EX_NB = 2 | 4, EAGAIN = 11;
const SEEK_DATA = 3, SEEK_HOLE = 4, SEEK_END = 2;
const ENXIO = 6;
const STATFS_BYTES = 120;
/** `f_type` of tmpfs and ramfs: include/uapi/linux/magic.h. */
const MEMORY_FILESYSTEMS: readonly number[] = [0x01021994, 0x858458f6];

export interface OpenOptions {
  readonly create?: boolean;
  readonly exclusive?: boolean;
  readonly readOnly?: boolean;
  readonly direct?: boolean;
}

/** @returns a descriptor. @throws {PsmaError} sys/... */
export function openFile(path: string, options: OpenOptions = {}): number {
  const flags = (options.readOnly ? O_RDONLY : O_RDWR) | O_CLOEXEC |
    (options.create ? O_CREAT : 0) | (options.exclusive ? O_EXCL : 0) |
    (options.direct ? O_DIRECT : 0);
  const fd = libc().open(cString(path), flags, 0o600);
  if (fd < 0) throw sysError(`open ${path}`, errno());
  return fd;
}

/** Closes a descriptor. Its errors are not told: what must be on disk is flushed before. */
export function closeFile(fd: number): void {
  libc().close(fd);
}

/**
 * Claims a file for this descriptor alone (flock). The kernel takes the claim back when the descriptor is closed
 * everywhere and all I/O on it has ended: a direct write of a killed process may outlive it, its claim as well.
 * @returns false while another has it. A file system that has no claims grants every one.
 */
export function claimFile(fd: number): boolean {
  return libc().flock(fd, LOCK_EX_NB) >= 0 || errno() !== EAGAIN;
}

/** The process that has claimed what a descriptor leads to; undefined where the kernel does not tell. See proc_locks(5). */
export function claimHolder(fd: number): number | undefined {
  try {
    const { dev, ino } = Deno.statSync(`/proc/self/fd/${fd}`);
    return decodeClaims(Deno.readTextFileSync("/proc/locks"), dev, ino ?? 0);
  } catch {
    return undefined;
  }
}

/** Gives a claim up at once: the ring may keep the file itself for a moment after it is closed. */
export function releaseFile(fd: number): void {
  libc().flock(fd, LOCK_UN);
}

/** Bytes by the end of the file or device. */
export function fileSize(fd: number): number {
  const size = Number(libc().lseek(fd, 0n, SEEK_END));
  if (size < 0) throw sysError("measure a file", errno());
  return size;
}

/** Sets a file's length; growth reads as zeros. */
export function truncateFile(fd: number, length: number): void {
  if (libc().ftruncate(fd, BigInt(length)) < 0) throw sysError("resize a file", errno());
}

/** Bytes that the file occupies on its file system (`st_blocks * 512`). */
export function allocatedBytes(fd: number): number {
  const stat = new Uint8Array(144);
  if (libc().fstat(fd, stat) < 0) throw sysError("stat a file", errno());
  return Number(new DataView(stat.buffer).getBigInt64(64, true)) * 512;
}

/** The next run of bytes that may hold data at or after `from`; undefined when only holes follow. */
export function nextDataRun(fd: number, from: number): { at: number; end: number } | undefined {
  const at = Number(libc().lseek(fd, BigInt(from), SEEK_DATA));
  if (at < 0) {
    const code = errno();
    if (code === ENXIO) return undefined;
    throw sysError("look for data in a file", code);
  }
  const end = Number(libc().lseek(fd, BigInt(at), SEEK_HOLE));
  if (end < 0) throw sysError("look for holes in a file", errno());
  return { at, end };
}

/**
 * True for a file whose bytes are memory. Reading and writing it takes no longer than copying, and io_uring,
 * which cannot know that, would hand each such operation to another thread.
 */
export function livesInMemory(fd: number): boolean {
  const answer = new Uint8Array(STATFS_BYTES);
  if (libc().fstatfs(fd, answer) < 0) return false;
  return MEMORY_FILESYSTEMS.includes(new DataView(answer.buffer).getUint32(0, true));
}

/** Hot path. Reads at once, on the calling thread. @returns bytes read; negative when it failed. */
export function readNow(fd: number, at: number, address: number, length: number): number {
  return libc().preadNow(fd, BigInt(address), length, BigInt(at));
}

/** Hot path. Writes at once, on the calling thread. @returns bytes written; negative when it failed. */
export function writeNow(fd: number, at: number, address: number, length: number): number {
  return libc().pwriteNow(fd, BigInt(address), length, BigInt(at));
}
