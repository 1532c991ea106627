/** What processes and threads cost, from /proc: processor time, user and system together, and memory. */

/** USER_HZ, which /proc counts in on every architecture that this project runs on. */
const TICKS_PER_SECOND = 100;
const NS_PER_SECOND = 1e9;
const KIB = 1024;

/** Seconds of a process, with all threads that it has or had, the kernel's I/O workers for it included. */
export function processorSeconds(pid: number): number {
  // After the name, which stands in brackets and may hold anything, field 3 comes first.
  const text = Deno.readTextFileSync(`/proc/${pid}/stat`);
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[14 - 3]) + Number(fields[15 - 3])) / TICKS_PER_SECOND;
}

/** Seconds of one thread, to the nanosecond. */
export function threadSeconds(pid: number, thread: number): number {
  const [ran = NaN] = Deno.readTextFileSync(`/proc/${pid}/task/${thread}/schedstat`).split(" ");
  return Number(ran) / NS_PER_SECOND;
}

/** Threads of a process that have this name now. */
export function threadsNamed(pid: number, name: string): number[] {
  return [...Deno.readDirSync(`/proc/${pid}/task`)].map((entry) => Number(entry.name))
    .filter((thread) => Deno.readTextFileSync(`/proc/${pid}/task/${thread}/comm`).trim() === name);
}

export interface Mapping {
  readonly size_bytes: number;
  /** Present and nobody else's: what would be free again without it. */
  readonly private_bytes: number;
}

/** Every mapping of a process. */
export function mappingsOf(pid: number): Mapping[] {
  // Lines of one mapping follow its address range: `Size: 4 kB`, …
  const parts = Deno.readTextFileSync(`/proc/${pid}/smaps`).split(/^[0-9a-f]+-[0-9a-f]+ .*\n/m);
  return parts.slice(1).map((text) => {
    const bytes = (name: string) =>
      Number(new RegExp(`^${name}: +(\\d+) kB$`, "m").exec(text)?.[1] ?? NaN) * KIB;
    return {
      size_bytes: bytes("Size"),
      private_bytes: bytes("Private_Clean") + bytes("Private_Dirty"),
    };
  });
}
