/**
 * Holders: tiny processes that keep descriptors open so that what they stand for outlives this process. Whoever
 * comes next finds a holder by what it holds for, and takes the descriptors from it. A holder costs two pages
 * of memory, and is its own record: its command line names its subject and carries a note, so there is nothing on
 * disk that could go stale, and it is gone when the machine boots.
 *
 * Not promised: a holder in another PID name space is not found, and one in a cgroup or container that ends as
 * a whole ends with it.
 */
import { assert, PsmaError } from "../core/mod.ts";
import { HOLDER_NAME, holderProgram } from "./holder_program.ts";
import { closeFile } from "./files.ts";
import { libc } from "./libc.ts";
import { killProcess, openPidfd, reapChild, startTicks, takeDescriptor } from "./pidfd.ts";
import { spawnProgram } from "./spawn.ts";

const FOUND_WITHIN_MS = 1000;

export interface Holder {
  readonly pid: number;
  readonly pidfd: number;
  /** What the starter wrote for whoever takes over. */
  readonly note: string;
}

export interface StartHolder {
  /** What it holds for, such as the path of a served file. */
  readonly subject: string;
  readonly note: string;
  /** Kept open as the holder's 0 and 1; a single one as both, for it keeps no other. */
  readonly descriptors: readonly [number] | readonly [number, number];
}

/**
 * Starts a holder, a child of this process, and makes sure that it can be found and its descriptors can be
 * taken from it. The caller closes its pidfd, and reaps it when it has ended.
 * @throws {PsmaError} sys/permission where taking is forbidden, sys/architecture, sys/errno-N.
 */
export function startHolder({ subject, note, descriptors }: StartHolder): Holder {
  const [first, second = first] = descriptors;
  const pid = spawnProgram({
    program: holderProgram(),
    name: HOLDER_NAME,
    args: [subject, note],
    descriptors: [first, second],
  });
  const pidfd = openPidfd(pid);
  // A child that nobody has reaped has a pidfd, ended or not.
  assert(pidfd !== undefined, "a new child is gone");
  try {
    closeFile(takeDescriptor(pidfd, 0));
    untilFound(pid, subject);
  } catch (error) {
    killProcess(pidfd);
    closeFile(pidfd);
    reapChild(pid);
    throw error;
  }
  return { pid, pidfd, note };
}

/** A new process shows its command line a moment after its start. @throws {PsmaError} timeout/holder */
function untilFound(pid: number, subject: string): void {
  for (let tries = 0; noteOf(pid, subject) === undefined; tries++) {
    if (tries === FOUND_WITHIN_MS) {
      throw new PsmaError("timeout/holder", `Cannot hold ${subject}: the holder did not start`);
    }
    libc().poll(new Uint8Array(8), 0n, 1);
  }
}

/** @returns the holders of a subject, the oldest first; the caller closes their pidfds. */
export function findHolders(subject: string): Holder[] {
  const found: { holder: Holder; began: number }[] = [];
  for (const { name } of Deno.readDirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    const pid = Number(name);
    if (noteOf(pid, subject) === undefined) continue;
    const pidfd = openPidfd(pid);
    if (pidfd === undefined) continue;
    // Read again: now it is certain to be the process that the descriptor stands for.
    const note = noteOf(pid, subject);
    if (note === undefined) closeFile(pidfd);
    else found.push({ holder: { pid, pidfd, note }, began: startTicks(pid) ?? 0 });
  }
  return found.sort((a, b) => a.began - b.began || a.holder.pid - b.holder.pid)
    .map(({ holder }) => holder);
}

/**
 * The note of a holder of the subject, undefined for any other process. Of others not even the command line is
 * read: that waits for their memory, which may be held up by the very file that is to be taken over.
 */
function noteOf(pid: number, subject: string): string | undefined {
  try {
    // Anybody may call himself so; only its own program is one.
    const program = Deno.readLinkSync(`/proc/${pid}/exe`);
    if (!program.startsWith(`/memfd:${HOLDER_NAME}`)) return undefined;
    const [name, of, note] = Deno.readTextFileSync(`/proc/${pid}/cmdline`).split("\0");
    return name === HOLDER_NAME && of === subject ? note : undefined;
  } catch {
    return undefined; // Ended meanwhile, or another user's.
  }
}

/** Ends all holders of a subject without waiting for their end. @returns how many there were. */
export function endHolders(subject: string): number {
  const holders = findHolders(subject);
  for (const { pidfd } of holders) {
    killProcess(pidfd);
    closeFile(pidfd);
  }
  return holders.length;
}
