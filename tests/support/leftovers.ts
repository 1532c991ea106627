/**
 * What a test file left behind: processes, mounts, loop devices and files. They are told from other
 * people's by the temporary folder and the mark that the runner gave to that file's process.
 * Not found: what a test puts outside its temporary folder under a process that cleared its environment.
 */
import { HOLDER_NAME } from "../../src/sys/holder_program.ts";
import { deadMounts, removeStale } from "../../src/sys/mod.ts";
import { kill, waitUntil } from "./process.ts";

/** The environment variable that marks a test file's process and all that it starts. */
export const MARK_VARIABLE = "PSMA_TEST_MARK";

export interface Leftovers {
  readonly processes: readonly { readonly pid: number; readonly command: string }[];
  readonly mounts: readonly string[];
  readonly loops: readonly { readonly device: string; readonly file: string }[];
  readonly files: readonly string[];
}

/** @param dir the test file's TMPDIR. @param mark the value of MARK_VARIABLE. */
export function findLeftovers(dir: string, mark: string): Leftovers {
  const loops = findLoops(dir);
  return {
    processes: findProcesses(`${MARK_VARIABLE}=${mark}`, dir),
    mounts: findMounts(dir, loops.map(({ device }) => device)).map(({ target }) => target),
    loops,
    files: [...Deno.readDirSync(dir)].map((entry) => `${dir}/${entry.name}`),
  };
}

/**
 * Removes what killed runs of demo or tests left mounted, below the folder of temporary files alone: tools
 * that look at every mount (mkfs.btrfs) give up at one that nobody serves.
 * @returns where they were mounted.
 */
export async function removeDead(): Promise<string[]> {
  const dead = await deadMounts(`${Deno.env.get("TMPDIR") ?? "/tmp"}/psma-`);
  for (const at of dead) await removeStale(at);
  return dead;
}

/** One line for each thing left. */
export function describeLeftovers(left: Leftovers): string[] {
  return [
    ...left.processes.map(({ pid, command }) => `process ${pid} still runs: ${command}`),
    ...left.mounts.map((target) => `still mounted: ${target}`),
    ...left.loops.map(({ device, file }) => `loop device ${device} still holds ${file}`),
    ...left.files.map((file) => `temporary file not removed: ${file}`),
  ];
}

/**
 * Ends, unmounts, detaches and removes, in that order: a mount whose server is gone still unmounts,
 * and files are removed only when nothing is mounted above them any more.
 */
export async function cleanUp(dir: string, mark: string): Promise<void> {
  await endProcesses(mark, dir);
  // Found before anything is unmounted: a loop device forgets the path of a file it lost sight of.
  const loops = findLoops(dir);
  const mounts = findMounts(dir, loops.map(({ device }) => device)).reverse();
  const onLoops = mounts.filter(({ source }) => loops.some(({ device }) => device === source));
  for (const { target } of onLoops) quietly("umount", ["-l", target]);
  for (const { device } of loops) quietly("losetup", ["-d", device]);
  for (const { target } of mounts) quietly("umount", ["-l", target]);
  if (findMounts(dir).length === 0) Deno.removeSync(dir, { recursive: true });
}

async function endProcesses(mark: string, dir: string): Promise<void> {
  const marked = () => findProcesses(`${MARK_VARIABLE}=${mark}`, dir);
  for (const { pid } of marked()) kill(pid, "SIGKILL");
  try {
    await waitUntil(() => marked().length === 0, {
      what: "killed processes to end",
      within_ms: 5000,
    });
  } catch {
    // Stuck in the kernel, most likely on a mount that goes away next.
  }
}

/** By the mark, and holders, which have no environment, by what they hold. */
function findProcesses(variable: string, dir: string): { pid: number; command: string }[] {
  const found: { pid: number; command: string }[] = [];
  for (const { name } of Deno.readDirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    try {
      const args = Deno.readTextFileSync(`/proc/${name}/cmdline`).split("\0");
      const holds = args[0] === HOLDER_NAME && isBelow(args[1] ?? "", dir);
      const marked = Deno.readTextFileSync(`/proc/${name}/environ`).split("\0").includes(variable);
      const command = args.join(" ").trim();
      if (command !== "" && (marked || holds)) found.push({ pid: Number(name), command });
    } catch {
      // Ended meanwhile, or another user's.
    }
  }
  return found;
}

function findMounts(
  dir: string,
  devices: readonly string[] = [],
): { source: string; target: string }[] {
  const mounts: { source: string; target: string }[] = [];
  for (const line of Deno.readTextFileSync("/proc/self/mounts").split("\n")) {
    const [source = "", target = ""] = line.split(" ").map(unescapeOctal);
    if (isBelow(target, dir) || isBelow(source, dir) || devices.includes(source)) {
      mounts.push({ source, target });
    }
  }
  return mounts;
}

function findLoops(dir: string): { device: string; file: string }[] {
  const loops: { device: string; file: string }[] = [];
  for (const { name } of Deno.readDirSync("/sys/block")) {
    if (!name.startsWith("loop")) continue;
    try {
      const file = Deno.readTextFileSync(`/sys/block/${name}/loop/backing_file`).trim();
      if (isBelow(file, dir)) loops.push({ device: `/dev/${name}`, file });
    } catch {
      // Not attached.
    }
  }
  return loops;
}

function isBelow(path: string, dir: string): boolean {
  return path === dir || path.startsWith(`${dir}/`);
}

/** /proc/self/mounts writes blanks as octal escapes. */
function unescapeOctal(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, digits) => String.fromCharCode(parseInt(digits, 8)));
}

/** A tool that asks a file system whose server hangs would wait for ever. */
function quietly(command: string, args: string[]): void {
  new Deno.Command("timeout", {
    args: ["-s", "KILL", "20", command, ...args],
    stdout: "null",
    stderr: "null",
  }).outputSync();
}
