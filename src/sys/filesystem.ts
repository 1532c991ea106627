/**
 * File systems by system call: how full they are, growing them online, making one on a
 * blank device. Only making one needs a tool of the distribution.
 * Sources: fs/ext4/ext4.h and fs/xfs/libxfs/xfs_fs.h of Linux 6.12, include/uapi/linux/btrfs.h, statfs(2).
 */
import { PsmaError } from "../core/mod.ts";
import { attempt, mustSucceed } from "./attempt.ts";
import { openDescriptor } from "./descriptor.ts";
import { detectFilesystem } from "./detect.ts";
import { cString, libc, slowLibc, sysError } from "./libc.ts";
import { deadMounts, type MountEntry, mountsAt } from "./mountinfo.ts";

const EXT4_IOC_RESIZE_FS = 0x40086610n;
const XFS_IOC_FSGEOMETRY = 0x8100587en, XFS_IOC_FSGROWFSDATA = 0x4010586en;
const BTRFS_IOC_RESIZE = 0x50009403n;
const STATFS_BYTES = 120, XFS_GEOMETRY_BYTES = 256, BTRFS_ARGS_BYTES = 4096;
const O_RDONLY = 0, O_DIRECTORY = Deno.build.arch === "aarch64" ? 0o40000 : 0o200000;
const EPERM = 1, EOPNOTSUPP = 95;

export interface FilesystemUse {
  readonly total_bytes: number;
  readonly used_bytes: number;
  /** What a user without root's reserve can still write. */
  readonly available_bytes: number;
  readonly inodes: number;
  readonly free_inodes: number;
}

/** How full the file system at `path` is. @throws {PsmaError} sys/errno-N. */
export async function statFilesystem(path: string): Promise<FilesystemUse> {
  const answer = new Uint8Array(STATFS_BYTES);
  const result = await slowLibc().statfs(cString(path), answer);
  // The errno stays on the other thread; asked again here, a lasting failure says why.
  if (result < 0) mustSucceed(`measure the file system at ${path}`, statfsOf(path, answer));
  const view = new DataView(answer.buffer);
  const word = (index: number) => Number(view.getBigUint64(index * 8, true));
  const blockBytes = word(1), blocks = word(2), free = word(3);
  return {
    total_bytes: blocks * blockBytes,
    used_bytes: (blocks - free) * blockBytes,
    available_bytes: word(4) * blockBytes,
    inodes: word(5),
    free_inodes: word(6),
  };
}

/** Writes everything that the file system at `path` holds in memory. @throws {PsmaError} sys/errno-N. */
export function syncFilesystem(path: string): void {
  using directory = openDescriptor(path, O_RDONLY | O_DIRECTORY);
  mustSucceed(`sync ${path}`, () => libc().syncfs(directory.fd));
}

/**
 * Grows the mounted file system at `at` to the whole size of its device, while it is in use.
 * @param options.sizeBytes to this size instead, on a device that is larger than its volume.
 * @returns total bytes as statfs counts them, before and after; equal when there was nothing to grow.
 * @throws {PsmaError} not-found/mount; state/filesystem for a type that PSMA cannot grow;
 * sys/permission where ext4 asks for CAP_SYS_RESOURCE; sys/errno-N.
 */
export async function growFilesystem(
  at: string,
  { sizeBytes }: { sizeBytes?: number } = {},
): Promise<{ before_bytes: number; after_bytes: number }> {
  const mount = mountsAt(at).at(-1);
  if (mount === undefined) {
    throw new PsmaError("not-found/mount", `Cannot grow ${at}: nothing is mounted there`);
  }
  const before = await statFilesystem(at);
  {
    using directory = openDescriptor(at, O_RDONLY | O_DIRECTORY);
    grow(mount, directory.fd, sizeBytes ?? await sysfsDeviceBytes(mount.source));
  }
  const after = await statFilesystem(at);
  return { before_bytes: before.total_bytes, after_bytes: after.total_bytes };
}

function grow(mount: MountEntry, fd: number, sizeBytes: number): void {
  switch (mount.type) {
    case "ext4":
      return growExt4(mount, fd, sizeBytes);
    case "xfs":
      return growXfs(mount, fd, sizeBytes);
    case "btrfs":
      return growBtrfs(mount, fd, sizeBytes);
  }
  throw new PsmaError(
    "state/filesystem",
    `Cannot grow ${mount.at}: ${mount.type} is none of ext4, xfs, btrfs`,
  );
}

function growExt4(mount: MountEntry, fd: number, sizeBytes: number): void {
  const blocks = new BigUint64Array(1);
  const bytes = new Uint8Array(blocks.buffer), answer = new Uint8Array(STATFS_BYTES);
  mustSucceed(`measure ${mount.at}`, statfsOf(mount.at, answer));
  const blockBytes = Number(new DataView(answer.buffer).getBigUint64(8, true));
  blocks[0] = BigInt(Math.floor(sizeBytes / blockBytes));
  const result = attempt(ioctlOn(fd, EXT4_IOC_RESIZE_FS, bytes));
  if (result >= 0) return;
  const error = sysError(`grow ${mount.at} (ext4)`, result);
  throw new PsmaError(error.code, error.message, { hint: ext4Hint(-result) });
}

function ext4Hint(code: number): string {
  switch (code) {
    case EPERM:
      return "Growing ext4 online needs CAP_SYS_RESOURCE, which this process lacks; a full root has it.";
    case EOPNOTSUPP:
      return "This ext4 was made without room to grow online: unmount it and run resize2fs.";
  }
  return "The kernel's log says more (dmesg); an ext4 with errors must be checked by e2fsck first.";
}

function statfsOf(path: string, answer: Uint8Array<ArrayBuffer>): () => number {
  const name = cString(path);
  return () => libc().statfs(name, answer);
}

/** `struct xfs_fsop_geom`: block size at 0, data blocks at 32, imaxpct at 28. */
function growXfs(mount: MountEntry, fd: number, sizeBytes: number): void {
  const geometry = new Uint8Array(XFS_GEOMETRY_BYTES);
  mustSucceed(
    `read XFS's geometry at ${mount.at}`,
    ioctlOn(fd, XFS_IOC_FSGEOMETRY, geometry),
  );
  const had = new DataView(geometry.buffer);
  const blockBytes = had.getUint32(0, true), blocks = Number(had.getBigUint64(32, true));
  const wanted = Math.floor(sizeBytes / blockBytes);
  if (wanted <= blocks) return;
  const request = new Uint8Array(16), view = new DataView(request.buffer);
  view.setBigUint64(0, BigInt(wanted), true);
  view.setUint32(8, had.getUint32(28, true), true);
  mustSucceed(
    `grow ${mount.at} (xfs)`,
    ioctlOn(fd, XFS_IOC_FSGROWFSDATA, request),
  );
}

/** `struct btrfs_ioctl_vol_args`: the wish as text after a descriptor that is not used. */
function growBtrfs(mount: MountEntry, fd: number, sizeBytes: number): void {
  const args = new Uint8Array(BTRFS_ARGS_BYTES);
  args.set(cString(String(sizeBytes)), 8);
  mustSucceed(`grow ${mount.at} (btrfs)`, ioctlOn(fd, BTRFS_IOC_RESIZE, args));
}

function ioctlOn(fd: number, request: bigint, argument: Uint8Array<ArrayBuffer>): () => number {
  return () => libc().ioctl(fd, request, argument);
}

/** Bytes of a block device as /sys shows them, in sectors of 512. */
async function sysfsDeviceBytes(device: string): Promise<number> {
  const real = await Deno.realPath(device);
  const text = await Deno.readTextFile(`/sys/class/block/${real.slice("/dev/".length)}/size`);
  return Number(text) * 512;
}

/**
 * The distribution's tool, its package, and options: quiet; discarding a blank device is wasted time. A size
 * that is not the device's goes in front of the device for all but ext4.
 */
interface Maker {
  readonly package: string;
  arguments(device: string, sizeBytes?: number): string[];
}

const MAKERS: Readonly<Record<string, Maker>> = {
  xfs: {
    package: "xfsprogs",
    arguments: (device, size) => ["-q", "-K", ...(size ? ["-d", `size=${size}`] : []), device],
  },
  ext4: {
    package: "e2fsprogs",
    arguments: (device, size) => [
      "-q",
      "-E",
      "nodiscard",
      device,
      ...(size ? [`${Math.floor(size / 1024)}k`] : []),
    ],
  },
  btrfs: {
    package: "btrfs-progs",
    arguments: (device, size) => ["-q", "-K", ...(size ? ["-b", `${size}`] : []), device],
  },
};

/**
 * Makes a file system on a blank device with the distribution's `mkfs.<type>`.
 * @param options.sizeBytes how large, on a device that is larger than its volume.
 * @throws {PsmaError} state/not-blank, usage/filesystem, not-found/mkfs, sys/mkfs with the tool's own words.
 */
export async function formatFilesystem(
  device: string,
  type: string,
  { sizeBytes }: { sizeBytes?: number } = {},
): Promise<void> {
  const maker = MAKERS[type];
  if (maker === undefined) {
    throw new PsmaError(
      "usage/filesystem",
      `Cannot format ${device}: no maker of ${type} is known`,
      {
        hint: "Choose ext4, xfs or btrfs.",
      },
    );
  }
  const contents = await detectFilesystem(device, sizeBytes === undefined ? {} : { sizeBytes });
  if (contents !== "blank") {
    const what = contents === "other" ? "data of an unknown kind" : contents;
    throw new PsmaError("state/not-blank", `Cannot format ${device}: it holds ${what}`, {
      hint: "Only blank devices are formatted; wipe it yourself if it may be lost.",
    });
  }
  const tool = await findTool(`mkfs.${type}`);
  if (tool === undefined) {
    throw new PsmaError(
      "not-found/mkfs",
      `Cannot format ${device}: mkfs.${type} is not installed`,
      {
        hint: `Install the package ${maker.package}.`,
      },
    );
  }
  const { success, stderr, stdout } = await new Deno.Command(tool, {
    args: maker.arguments(device, sizeBytes),
    env: { LC_ALL: "C" },
    stdin: "null",
  }).output();
  if (success) return;
  const said = new TextDecoder().decode(stderr.length > 0 ? stderr : stdout).trim();
  // What went wrong comes first; some tools go on with a page about their options.
  const [reason = ""] = said.split("\n", 1);
  // mkfs.btrfs looks at whatever is mounted, and gives up at what nobody serves any more.
  const dead = said.includes("not connected") ? await deadMounts() : [];
  const hint = `Nobody serves ${dead.join(" and ")} any more: umount -l, then try again.`;
  throw new PsmaError(
    "sys/mkfs",
    `Cannot format ${device} as ${type}: ${reason}`,
    dead.length === 0 ? {} : { hint },
  );
}

/** A service's PATH may leave out the folders where mkfs is. */
async function findTool(name: string): Promise<string | undefined> {
  const folders = [...(Deno.env.get("PATH") ?? "").split(":"), "/usr/sbin", "/sbin"];
  for (const folder of folders) {
    try {
      const path = `${folder}/${name}`;
      if ((await Deno.stat(path)).isFile) return path;
    } catch {
      // Not in this folder.
    }
  }
  return undefined;
}
