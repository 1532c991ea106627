/**
 * Starting a program that gets exactly the descriptors it is meant to have. They are duplicated in the child
 * alone (posix_spawn's file actions), so none is ever inheritable here, where another thread might start a
 * child at the same moment.
 */
import { mustSucceed } from "./attempt.ts";
import { cString, libc, sysError } from "./libc.ts";
import { createMemoryFile } from "./memory_file.ts";

/** `posix_spawn_file_actions_t` has 80 bytes and `posix_spawnattr_t` 336 with glibc; both may grow. */
const OPAQUE_BYTES = 1024;
const SETSIGMASK = 0x08, SETSID = 0x80;

export interface SpawnProgram {
  /** The bytes of an executable file. */
  readonly program: Uint8Array<ArrayBuffer>;
  readonly name: string;
  readonly args: readonly string[];
  /** Become descriptors 0, 1, … of the program. */
  readonly descriptors: readonly number[];
}

/**
 * Starts a program in a session of its own, so that neither Ctrl-C nor a terminal's end reaches it, in the
 * root directory and without environment. It keeps running when this process ends; until then it is this
 * process's child, to be reaped.
 * @returns its process id. @throws {PsmaError} sys/permission, sys/errno-N.
 */
export function spawnProgram({ program, name, args, descriptors }: SpawnProgram): number {
  const c = libc();
  const actions = new Uint8Array(OPAQUE_BYTES), attributes = new Uint8Array(OPAQUE_BYTES);
  const image = executable(program, name);
  c.posix_spawn_file_actions_init(actions);
  c.posix_spawnattr_init(attributes);
  try {
    c.posix_spawnattr_setflags(attributes, SETSID | SETSIGMASK);
    descriptors.forEach((fd, to) => c.posix_spawn_file_actions_adddup2(actions, fd, to));
    c.posix_spawn_file_actions_addchdir_np(actions, cString("/"));
    const pid = new Int32Array(1), path = cString(`/proc/self/fd/${image}`);
    const code = c.posix_spawn(pid, path, actions, attributes, vector([name, ...args]), vector([]));
    if (code !== 0) throw sysError(`start ${name}`, code);
    return pid[0] as number;
  } finally {
    c.posix_spawn_file_actions_destroy(actions);
    c.posix_spawnattr_destroy(attributes);
    c.close(image);
  }
}

function executable(program: Uint8Array<ArrayBuffer>, name: string): number {
  const fd = createMemoryFile(name, "program");
  try {
    mustSucceed(
      `write the program ${name}`,
      () => Number(libc().write(fd, program, BigInt(program.length))),
    );
    return fd;
  } catch (error) {
    libc().close(fd);
    throw error;
  }
}

/** Strings as execve(2) takes them: their addresses, a null, and behind it the strings themselves. */
function vector(strings: readonly string[]): Uint8Array<ArrayBuffer> {
  const parts = strings.map(cString);
  let at = (parts.length + 1) * 8;
  const block = new Uint8Array(at + parts.reduce((sum, part) => sum + part.length, 0));
  const base = BigInt(Deno.UnsafePointer.value(Deno.UnsafePointer.of(block)));
  const pointers = new BigUint64Array(block.buffer, 0, parts.length + 1);
  parts.forEach((part, i) => {
    pointers[i] = base + BigInt(at);
    block.set(part, at);
    at += part.length;
  });
  return block;
}
