/**
 * Mounts and unmounts file systems by system call. For the main thread: mounting a served device makes
 * the kernel read it, and the data-plane thread answers meanwhile.
 */
import { PsmaError } from "../core/mod.ts";
import { attempt } from "./attempt.ts";
import { cString, libc, sysError } from "./libc.ts";
import { hasDeadTwin } from "./loop.ts";
import { mountsAt } from "./mountinfo.ts";

const MNT_FORCE = 1, MNT_DETACH = 2;
const EINVAL = 22, ENOENT = 2, EBUSY = 16, EUCLEAN = 117, ENODEV = 19;

/** Words of mount options that are flags of mount(2); all others go to the file system as they are. */
const FLAGS: Readonly<Record<string, bigint>> = {
  ro: 1n,
  nosuid: 2n,
  nodev: 4n,
  noexec: 8n,
  sync: 16n,
  dirsync: 128n,
  noatime: 1024n,
  nodiratime: 2048n,
  relatime: 1n << 21n,
  strictatime: 1n << 24n,
  lazytime: 1n << 25n,
  rw: 0n,
  defaults: 0n,
};

export interface MountFilesystem {
  readonly device: string;
  /** A directory, made when absent. */
  readonly at: string;
  /** `xfs`, `ext4`, `btrfs`. */
  readonly type: string;
  /** As in fstab: `noatime,discard`. */
  readonly options?: string;
}

/**
 * Mounts a file system. XFS's protection against mounting one UUID twice stays on, because two copies of a
 * volume are two histories; it is lifted only where the other one is the same file on a loop device that
 * lost its server, which programs may keep alive long after it was unmounted.
 * @throws {PsmaError} sys/permission, sys/errno-N with the likely cause as its hint.
 */
export async function mountFilesystem(mount: MountFilesystem): Promise<void> {
  const { device, at, type, options = "" } = mount;
  await Deno.mkdir(at, { recursive: true });
  let result = mountOnce(mount, options);
  if (result === -EINVAL && type === "xfs" && await hasDeadTwin(device)) {
    result = mountOnce(mount, `${options},nouuid`);
  }
  if (result >= 0) return;
  const error = sysError(`mount ${device} (${type}) on ${at}`, result);
  const hint = mountHint(type, -result) ?? error.hint;
  throw new PsmaError(error.code, error.message, hint === undefined ? {} : { hint });
}

function mountOnce({ device, at, type }: MountFilesystem, options: string): number {
  const { flags, data } = splitMountOptions(options);
  const args = [cString(device), cString(at), cString(type), flags, cString(data)] as const;
  return attempt(() => libc().mount(...args));
}

/** `noatime,discard` → mount(2)'s flags and the file system's own options. */
function splitMountOptions(options: string): { flags: bigint; data: string } {
  let flags = 0n;
  const data: string[] = [];
  for (const word of options.split(",").filter((word) => word !== "")) {
    const flag = FLAGS[word];
    if (flag === undefined) data.push(word);
    else flags |= flag;
  }
  return { flags, data: data.join(",") };
}

function mountHint(type: string, code: number): string | undefined {
  switch (code) {
    case EINVAL:
      return type === "xfs"
        ? "The device holds no XFS that this kernel can mount, an option is unknown, its sectors are " +
          "smaller than the device's, or a file system with the same UUID is mounted already."
        : `The device holds no ${type} that this kernel can mount, or an option is unknown.`;
    case EBUSY:
      return "The device or the directory is in use by another mount.";
    case EUCLEAN:
      return `The file system is damaged: check it with fsck.${type} before mounting.`;
    case ENODEV:
      return `This kernel has no ${type}: load its module.`;
  }
  return undefined;
}

export interface UnmountOptions {
  /** Takes it out of the tree at once and lets go of it when its last user does. */
  readonly lazy?: boolean;
}

/**
 * Unmounts what is topmost at `at`; nothing mounted there is success.
 * @throws {PsmaError} sys/errno-16 while somebody uses it.
 */
export function unmountFilesystem(at: string, options: UnmountOptions = {}): void {
  const path = cString(at), flags = options.lazy ? MNT_DETACH : 0;
  if (mountsAt(at).length === 0) return;
  const result = attempt(() => libc().umount2(path, flags));
  if (result >= 0 || result === -EINVAL || result === -ENOENT) return;
  const error = sysError(`unmount ${at}`, result);
  const hint = result === -EBUSY ? "A program has a file open there: lsof names it." : error.hint;
  throw new PsmaError(error.code, error.message, hint === undefined ? {} : { hint });
}

/**
 * Detaches a mount at once on this thread, also on one that serves it: a lazy unmount waits for nobody.
 * Nothing mounted there, or not permitted, changes nothing.
 */
export function umountLazily(path: string): void {
  libc().umount2(cString(path), MNT_DETACH);
}

/**
 * Detaches a served file and aborts its connection, so that everything that waits for its server fails: also
 * a killed server that cannot end because a thread of its own waits for a file system on that file.
 */
export function abortServedFile(path: string): void {
  libc().umount2(cString(path), MNT_FORCE | MNT_DETACH);
}
