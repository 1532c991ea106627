/** Who uses a block device: a driver that ends one does not ask. */
import { attempt } from "./attempt.ts";
import { cString, libc } from "./libc.ts";
import { listMounts } from "./mountinfo.ts";

const O_RDONLY = 0, O_EXCL = 0o200, O_CLOEXEC = 0o2000000;
const EBUSY = 16;

/**
 * Looks for users of a block device: mounts, what stands on it (RAID, device mapper), programs that have it
 * open. Not seen: programs of other process name spaces that opened it without claiming it.
 * @returns each as a person names it, empty when there is none.
 */
export function blockDeviceUsers(device: string): string[] {
  const mounts = listMounts().filter(({ source }) => source === device)
    .map(({ at }) => `the file system at ${at}`);
  const users = [...mounts, ...programsWithOpen(device)];
  return users.length === 0 && isClaimed(device) ? ["another device or mount"] : users;
}

/** Mounts and drivers claim the device that they stand on; an exclusive open is refused then. */
function isClaimed(device: string): boolean {
  const path = cString(device);
  const fd = attempt(() => libc().open(path, O_RDONLY | O_EXCL | O_CLOEXEC, 0));
  if (fd >= 0) libc().close(fd);
  return fd === -EBUSY;
}

function programsWithOpen(device: string): string[] {
  const found: string[] = [];
  for (const { name: pid } of Deno.readDirSync("/proc")) {
    if (!/^\d+$/.test(pid) || !hasOpen(pid, device)) continue;
    found.push(`${programName(pid)} (process ${pid})`);
  }
  return found;
}

function hasOpen(pid: string, device: string): boolean {
  try {
    for (const { name } of Deno.readDirSync(`/proc/${pid}/fd`)) {
      if (linkOf(`/proc/${pid}/fd/${name}`) === device) return true;
    }
  } catch {
    // It ended meanwhile, or is not ours to see.
  }
  return false;
}

function linkOf(path: string): string | undefined {
  try {
    return Deno.readLinkSync(path);
  } catch {
    return undefined;
  }
}

function programName(pid: string): string {
  try {
    return Deno.readTextFileSync(`/proc/${pid}/comm`).trim();
  } catch {
    return "a program";
  }
}
