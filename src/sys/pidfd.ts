/**
 * Processes by descriptor: unlike a process id it never comes to mean another process. Readable once every
 * thread of the process has ended. Linux 5.6 (pidfd_getfd).
 */
import { attempt, mustSucceed } from "./attempt.ts";
import { libc, sysError } from "./libc.ts";

const SYS_PIDFD_SEND_SIGNAL = 424n, SYS_PIDFD_OPEN = 434n, SYS_PIDFD_GETFD = 438n;
const ENOENT = 2, ESRCH = 3, EINVAL = 22, SIGKILL = 9n;
/** The number may have become a thread's: ENOENT, and EINVAL before Linux 6.14. No process has it then. */
const NO_PROCESS: readonly number[] = [ESRCH, ENOENT, EINVAL];

/** @returns a descriptor that stands for the process, or undefined when there is none. @throws {PsmaError} sys/errno-N. */
export function openPidfd(pid: number): number | undefined {
  const fd = attempt(() => Number(libc().syscall3(SYS_PIDFD_OPEN, BigInt(pid), 0n, 0n)));
  if (NO_PROCESS.includes(-fd)) return undefined;
  if (fd < 0) throw sysError(`look at process ${pid}`, fd);
  return fd;
}

/**
 * Duplicates another process's descriptor into this one, close-on-exec. It needs the right to trace that
 * process: the same user with no fewer capabilities, or CAP_SYS_PTRACE; a container's filter may forbid it.
 * @throws {PsmaError} sys/permission, sys/errno-N.
 */
export function takeDescriptor(pidfd: number, descriptor: number): number {
  return mustSucceed(
    "take a descriptor from another process",
    () => Number(libc().syscall3(SYS_PIDFD_GETFD, BigInt(pidfd), BigInt(descriptor), 0n)),
  );
}

/** Kills a process; one that has ended already is fine. @throws {PsmaError} sys/permission. */
export function killProcess(pidfd: number): void {
  const result = attempt(
    () => Number(libc().syscall4(SYS_PIDFD_SEND_SIGNAL, BigInt(pidfd), SIGKILL, 0n, 0n)),
  );
  if (result < 0 && result !== -ESRCH) throw sysError("end a process", result);
}

/** Waits for the end of a child that was killed, and lets go of its exit code; of another's child nothing. */
export function reapChild(pid: number): void {
  libc().waitpid(pid, null, 0);
}

/** When a process began, in clock ticks since the boot: with its id it names one process of this boot. */
export function startTicks(pid: number): number | undefined {
  try {
    // The name before it, in brackets, may hold anything; this is the 22nd field, and they begin with the third.
    const fields = /\) (.*)$/s.exec(Deno.readTextFileSync(`/proc/${pid}/stat`))?.[1]?.split(" ");
    return Number(fields?.[22 - 3]);
  } catch {
    return undefined;
  }
}
