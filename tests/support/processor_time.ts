/** Processor time of processes and threads, from /proc: user and system together. */

/** USER_HZ, which /proc counts in on every architecture that this project runs on. */
const TICKS_PER_SECOND = 100;

/** Seconds of a process, with all threads that it has or had, the kernel's I/O workers for it included. */
export function processorSeconds(pid: number): number {
  return ticksOf(`/proc/${pid}/stat`) / TICKS_PER_SECOND;
}

function ticksOf(path: string): number {
  // After the name, which stands in brackets and may hold anything, field 3 comes first.
  const text = Deno.readTextFileSync(path);
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return Number(fields[14 - 3]) + Number(fields[15 - 3]);
}
