/** Files in memory that have no name in any directory: they live as long as somebody has them open or mapped. */
import { attempt, mustSucceed } from "./attempt.ts";
import { cString, libc, sysError } from "./libc.ts";

const MFD_CLOEXEC = 1, MFD_NOEXEC_SEAL = 8, MFD_EXEC = 0x10;
const EINVAL = 22;

/**
 * @param name as /proc shows it. @param kind a program may be executed, everything else may not.
 * @returns an empty file's descriptor. @throws {PsmaError} sys/errno-N.
 */
export function createMemoryFile(name: string, kind: "program" | "data"): number {
  const title = cString(name), flag = kind === "program" ? MFD_EXEC : MFD_NOEXEC_SEAL;
  let fd = attempt(() => libc().memfd_create(title, MFD_CLOEXEC | flag));
  // Before Linux 6.3 every such file may be executed, and the flags are unknown.
  if (fd === -EINVAL) fd = attempt(() => libc().memfd_create(title, MFD_CLOEXEC));
  if (fd < 0) throw sysError(`make the memory file ${name}`, fd);
  return fd;
}

/** As createMemoryFile, of `length` bytes that read as zeros. */
export function createDataFile(name: string, length: number): number {
  const fd = createMemoryFile(name, "data");
  mustSucceed(`size the memory file ${name}`, () => libc().ftruncate(fd, BigInt(length)));
  return fd;
}
