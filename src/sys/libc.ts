/**
 * The one place that opens libc. Calls may sleep in the kernel (mount, ioctl on a device): whoever makes them
 * on a device that this very process serves waits for itself, so they belong into a host task
 * (`dataplane/host/tasks.ts`).
 *
 * x86-64 and aarch64 glibc. Not promised: musl, 32-bit.
 */
import { assert, errnoText, PsmaError } from "../core/mod.ts";

const QUICK = {
  __errno_location: { parameters: [], result: "pointer" },
  mmap: { parameters: ["usize", "usize", "i32", "i32", "i32", "i64"], result: "usize" },
  munmap: { parameters: ["usize", "usize"], result: "i32" },
  memcpy: { parameters: ["usize", "usize", "usize"], result: "void" },
  madvise: { parameters: ["usize", "usize", "i32"], result: "i32" },
  open: { parameters: ["buffer", "i32", "u32"], result: "i32" },
  close: { parameters: ["i32"], result: "i32" },
  read: { parameters: ["i32", "buffer", "usize"], result: "isize" },
  readInto: { name: "read", parameters: ["i32", "buffer", "u32"], result: "i32" },
  writeNow: { name: "write", parameters: ["i32", "usize", "u32"], result: "i32" },
  write: { parameters: ["i32", "buffer", "usize"], result: "isize" },
  pread: { parameters: ["i32", "usize", "usize", "i64"], result: "isize" },
  preadNow: { name: "pread", parameters: ["i32", "usize", "u32", "i64"], result: "i32" },
  pwriteNow: { name: "pwrite", parameters: ["i32", "usize", "u32", "i64"], result: "i32" },
  lseek: { parameters: ["i32", "i64", "i32"], result: "i64" },
  ftruncate: { parameters: ["i32", "i64"], result: "i32" },
  flock: { parameters: ["i32", "i32"], result: "i32" },
  ioctl: { parameters: ["i32", "u64", "buffer"], result: "i32" },
  ioctlValue: { name: "ioctl", parameters: ["i32", "u64", "u64"], result: "i32" },
  socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
  setsockopt: { parameters: ["i32", "i32", "i32", "buffer", "u32"], result: "i32" },
  bind: { parameters: ["i32", "buffer", "u32"], result: "i32" },
  listen: { parameters: ["i32", "i32"], result: "i32" },
  connect: { parameters: ["i32", "buffer", "u32"], result: "i32" },
  getsockname: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
  shutdown: { parameters: ["i32", "i32"], result: "i32" },
  sysconf: { parameters: ["i32"], result: "i64" },
  eventfd: { parameters: ["u32", "i32"], result: "i32" },
  prctl: { parameters: ["i32", "u64", "u64", "u64", "u64"], result: "i32" },
  syscall2: { name: "syscall", parameters: ["i64", "u64", "buffer"], result: "i64" },
  syscall3: { name: "syscall", parameters: ["i64", "i64", "i64", "i64"], result: "i64" },
  syscall4: { name: "syscall", parameters: ["i64", "i64", "i64", "i64", "i64"], result: "i64" },
  ioUringEnter: {
    name: "syscall",
    parameters: ["usize", "i32", "u32", "u32", "u32", "usize", "usize"],
    result: "i32",
  },
  fstat: { parameters: ["i32", "buffer"], result: "i32" },
  statx: { parameters: ["i32", "buffer", "i32", "u32", "buffer"], result: "i32" },
  mount: { parameters: ["buffer", "buffer", "buffer", "u64", "buffer"], result: "i32" },
  umount2: { parameters: ["buffer", "i32"], result: "i32" },
  statfs: { parameters: ["buffer", "buffer"], result: "i32" },
  fstatfs: { parameters: ["i32", "buffer"], result: "i32" },
  syncfs: { parameters: ["i32"], result: "i32" },
  poll: { parameters: ["buffer", "u64", "i32"], result: "i32" },
  memfd_create: { parameters: ["buffer", "u32"], result: "i32" },
  waitpid: { parameters: ["i32", "buffer", "i32"], result: "i32" },
  posix_spawn: {
    parameters: ["buffer", "buffer", "buffer", "buffer", "buffer", "buffer"],
    result: "i32",
  },
  posix_spawn_file_actions_init: { parameters: ["buffer"], result: "i32" },
  posix_spawn_file_actions_destroy: { parameters: ["buffer"], result: "i32" },
  posix_spawn_file_actions_adddup2: { parameters: ["buffer", "i32", "i32"], result: "i32" },
  posix_spawn_file_actions_addchdir_np: { parameters: ["buffer", "buffer"], result: "i32" },
  posix_spawnattr_init: { parameters: ["buffer"], result: "i32" },
  posix_spawnattr_destroy: { parameters: ["buffer"], result: "i32" },
  posix_spawnattr_setflags: { parameters: ["buffer", "i16"], result: "i32" },
} as const satisfies Deno.ForeignLibraryInterface;

/** May sleep on a file system or device that is slow to answer, so they run off the calling thread. */
const SLOW = {
  read: { parameters: ["i32", "buffer", "usize"], result: "isize", nonblocking: true },
  statfs: { parameters: ["buffer", "buffer"], result: "i32", nonblocking: true },
} as const satisfies Deno.ForeignLibraryInterface;

type Libc = Deno.DynamicLibrary<typeof QUICK>["symbols"];

/** Another kernel in the place of this machine's, with the calls that it knows: a simulated one. */
export interface Kernel {
  readonly calls: Partial<Libc>;
  /** Of the call that failed last. */
  readonly errno: number;
  /** The bytes of a mapping, shared with whoever else has them. */
  mapping(address: number, length: number): Uint8Array<ArrayBuffer>;
}

let kernel: Kernel | undefined;

/** From here on this thread's calls go to another kernel; undefined: to the machine's own again. */
export function useKernel(other: Kernel | undefined): void {
  kernel = other;
  quick = other?.calls as Libc | undefined;
}

/** The bytes behind an address that mmap gave. */
export function mappedBytes(address: bigint, length: number): Uint8Array<ArrayBuffer> {
  if (kernel) return kernel.mapping(Number(address), length);
  const pointer = Deno.UnsafePointer.create(address);
  assert(pointer !== null, "mmap gave null");
  return new Uint8Array(Deno.UnsafePointerView.getArrayBuffer(pointer, length));
}

let quick: Libc | undefined;
let slow: Deno.DynamicLibrary<typeof SLOW>["symbols"] | undefined;

/** Calls that return at once. @throws {PsmaError} sys/libc where there is no glibc. */
export function libc(): Libc {
  return quick ??= openLibc(QUICK);
}

/** Calls that may sleep; each returns a promise. Errno belongs to the thread that ran it: it is not known. */
export function slowLibc(): Deno.DynamicLibrary<typeof SLOW>["symbols"] {
  return slow ??= openLibc(SLOW);
}

function openLibc<T extends Deno.ForeignLibraryInterface>(
  symbols: T,
): Deno.DynamicLibrary<T>["symbols"] {
  try {
    return Deno.dlopen("libc.so.6", symbols).symbols;
  } catch (cause) {
    throw new PsmaError("sys/libc", "Cannot call the kernel: libc.so.6 does not open", {
      cause,
      hint: "PSMA needs Linux with glibc on x86-64 or aarch64.",
    });
  }
}

let errnoView: Deno.UnsafePointerView | undefined;

/** The calling thread's errno, valid right after a quick call that failed. */
export function errno(): number {
  if (kernel) return kernel.errno;
  // A thread's errno has one address for all its life, and each thread loads this module for itself.
  if (errnoView === undefined) {
    const at = libc().__errno_location();
    if (at === null) return 0;
    errnoView = new Deno.UnsafePointerView(at);
  }
  return errnoView.getInt32();
}

/** Text as libc reads it: UTF-8 with a zero byte at the end. */
export function cString(text: string): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(text + "\0");
}

/** The error for a failed system call: "Cannot open /x: ENOENT: no such file". */
export function sysError(doing: string, code: number): PsmaError {
  const denied = Math.abs(code) === 1 || Math.abs(code) === 13;
  return new PsmaError(
    denied ? "sys/permission" : `sys/errno-${Math.abs(code)}`,
    `Cannot ${doing}: ${errnoText(code)}`,
    denied ? { hint: "Run psma as root, or grant the capability." } : {},
  );
}
