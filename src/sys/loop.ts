/**
 * Loop devices by ioctl: a file that the data plane serves becomes a block device.
 * Source: include/uapi/linux/loop.h, Linux 5.8 and later (LOOP_CONFIGURE).
 *
 * Direct I/O is on by default: the loop device then passes the application's pages straight to the file, many
 * requests at a time; without it one kernel thread copies each through the page cache first.
 */
import { PsmaError, systemClock } from "../core/mod.ts";
import { attempt, mustSucceed } from "./attempt.ts";
import { blockDeviceShape } from "./block_device.ts";
import { openDescriptor } from "./descriptor.ts";
import { sectorBytesOf } from "./detect.ts";
import { libc, slowLibc, sysError } from "./libc.ts";
import { allocateMemory, unmapMemory } from "./memory.ts";
import { realMountPoint } from "./mountinfo.ts";

const LOOP_CLR_FD = 0x4C01n, LOOP_SET_CAPACITY = 0x4C07n;
const LOOP_CONFIGURE = 0x4C0An, LOOP_CTL_GET_FREE = 0x4C82n;
const LOOP_CONFIG_BYTES = 304;
/** Within `struct loop_config`. */
const CONFIG_FLAGS_AT = 60, CONFIG_NAME_AT = 64, NAME_BYTES = 64;
const LO_FLAGS_READ_ONLY = 1, LO_FLAGS_DIRECT_IO = 16;
const O_RDONLY = 0, O_RDWR = 2;
const O_DIRECT = Deno.build.arch === "aarch64" ? 0o200000 : 0o40000;
const EBUSY = 16, ENXIO = 6, ENOTTY = 25;
const CONFIGURE_TRIES = 32;
const READABLE_WITHIN_MS = 2000;
const CAPACITY_WITHIN_MS = 30_000, CAPACITY_EVERY_MS = 1;

export interface AttachLoop {
  readonly path: string;
  readonly directIo?: boolean;
  readonly readOnly?: boolean;
  /**
   * Logical block size. By default what the contents were made for: an XFS says it; ext4, btrfs and a blank
   * file get 4096, so that no write is smaller than a page; all else, such as a partition table, 512.
   */
  readonly blockBytes?: number;
}

export interface AttachedLoop {
  /** `/dev/loop3`. */
  readonly device: string;
  readonly blockBytes: number;
  /** What the kernel made of `directIo`: a file system under the file may refuse it. */
  readonly directIo: boolean;
}

/**
 * Attaches a file to a free loop device, without partition scan.
 * @throws {PsmaError} sys/permission, sys/errno-N.
 */
export async function attachLoop(options: AttachLoop): Promise<AttachedLoop> {
  const { directIo = true, readOnly = false } = options;
  const path = realMountPoint(options.path);
  const blockBytes = options.blockBytes ?? await sectorBytesOf(path);
  const flags = (directIo ? LO_FLAGS_DIRECT_IO : 0) | (readOnly ? LO_FLAGS_READ_ONLY : 0);
  const config = new Uint8Array(LOOP_CONFIG_BYTES), view = new DataView(config.buffer);
  using file = openDescriptor(path, readOnly ? O_RDONLY : O_RDWR);
  view.setUint32(0, file.fd, true);
  view.setUint32(4, blockBytes, true);
  view.setUint32(CONFIG_FLAGS_AT, flags, true);
  config.set(shortName(path), CONFIG_NAME_AT);
  const device = configure(path, config);
  return { device, blockBytes, directIo: await usesDirectIo(device) };
}

/** Another process may take the device between "which is free" and "take it": then the next one. */
function configure(path: string, config: Uint8Array<ArrayBuffer>): string {
  using control = openDescriptor("/dev/loop-control", O_RDWR);
  for (let i = 0; i < CONFIGURE_TRIES; i++) {
    const number = mustSucceed(
      "find a free loop device",
      () => libc().ioctlValue(control.fd, LOOP_CTL_GET_FREE, 0n),
    );
    const name = `/dev/loop${number}`;
    using device = openDescriptor(name, O_RDWR);
    const result = attempt(() => libc().ioctl(device.fd, LOOP_CONFIGURE, config));
    if (result >= 0) return name;
    if (result !== -EBUSY) throw sysError(`attach ${path} to ${name}`, result);
  }
  throw new PsmaError("sys/errno-16", `Cannot attach ${path}: every free loop device was taken`, {
    hint: "Another program attaches loop devices all the time: try again when it has ended.",
  });
}

async function usesDirectIo(device: string): Promise<boolean> {
  return (await Deno.readTextFile(`/sys/block/${baseName(device)}/loop/dio`)).trim() === "1";
}

/**
 * Detaches a loop device. While somebody uses it (a mount, an open descriptor) the kernel detaches it when the
 * last one lets go; a device that is not attached is success.
 * @returns whether it is free now. @throws {PsmaError} sys/errno-N.
 */
export async function detachLoop(device: string): Promise<boolean> {
  {
    using opened = openDescriptor(device, O_RDWR);
    const result = attempt(() => libc().ioctlValue(opened.fd, LOOP_CLR_FD, 0n));
    if (result < 0 && result !== -ENXIO) throw sysError(`detach ${device}`, result);
  }
  return await backingFile(device) === undefined;
}

/**
 * Makes a loop device as large as its file has become. While writes are in flight the kernel may answer
 * with a file's new size and yet keep the old one for itself (FUSE discards attributes that raced with a
 * write): the device would show the new size, and reads of the new end would fail. So the size that the
 * kernel itself goes by, which is where seeking to the end leads, is read until it is the new one.
 * @param path the file, whose size is read afresh. @returns bytes of the device.
 * @throws {PsmaError} timeout/loop when the size does not show within half a minute.
 */
export async function growLoop(device: string, path: string): Promise<number> {
  const deadlineMs = systemClock.monotonicMs() + CAPACITY_WITHIN_MS;
  using file = await Deno.open(path);
  using opened = openDescriptor(device, O_RDONLY);
  for (;;) {
    const { size } = await file.stat();
    const known = await file.seek(0, Deno.SeekMode.End);
    if (known === size) {
      mustSucceed(`resize ${device}`, () => libc().ioctlValue(opened.fd, LOOP_SET_CAPACITY, 0n));
      // The device has whole sectors of 512 bytes.
      if (deviceBytes(device) === size - size % 512) return size - size % 512;
    }
    if (systemClock.monotonicMs() > deadlineMs) {
      throw new PsmaError("timeout/loop", `Cannot resize ${device}: its new size does not show`, {
        hint: `Its file has ${size} bytes. Try again when less is being written.`,
      });
    }
    await systemClock.sleep(CAPACITY_EVERY_MS);
  }
}

/** Bytes of a block device. @throws {PsmaError} sys/errno-N. */
export function deviceBytes(device: string): number {
  using opened = openDescriptor(device, O_RDONLY);
  const shape = blockDeviceShape(opened.fd);
  if (!shape) throw sysError(`measure ${device}`, ENOTTY);
  return shape.sizeBytes;
}

/** Loop devices on a file, also when the file was deleted since. */
export async function findLoops(path: string): Promise<string[]> {
  const real = realMountPoint(path);
  const devices = await attachedLoops();
  return devices.filter(({ file }) => file === real || file === `${real} (deleted)`)
    .map(({ device }) => device).sort();
}

/** Every attached loop device with its file's path as the kernel shows it now. */
async function attachedLoops(): Promise<{ device: string; file: string }[]> {
  const attached: { device: string; file: string }[] = [];
  for await (const { name } of Deno.readDir("/sys/block")) {
    const device = `/dev/${name}`;
    const file = name.startsWith("loop") ? await backingFile(device) : undefined;
    if (file !== undefined) attached.push({ device, file });
  }
  return attached;
}

/**
 * Whether this device's file has other loop devices that lost their server, and none that can be read: one
 * that can is somebody's. A file whose mount has gone shows as `/`, so every such device counts.
 */
export async function hasDeadTwin(device: string): Promise<boolean> {
  const own = await backingFile(device);
  if (own === undefined) return false;
  let dead = false;
  for (const other of await attachedLoops()) {
    if (other.device === device || (other.file !== own && other.file !== "/")) continue;
    if (await isReadable(other.device)) return false;
    dead = true;
  }
  return dead;
}

/**
 * Reads the first block from the device itself, whatever the page cache still holds of it. One that does
 * not answer in time has a server that may come back: it counts as readable.
 */
function isReadable(device: string): Promise<boolean> {
  const memory = allocateMemory(4096);
  const opened = openDescriptor(device, O_RDONLY | O_DIRECT);
  const answer = slowLibc().read(opened.fd, memory.bytes, 4096n)
    .then((count) => count > 0n, () => false);
  // Not before the kernel is done with them.
  const freed = answer.finally(() => {
    unmapMemory(memory);
    opened[Symbol.dispose]();
  });
  return Promise.race([freed, systemClock.sleep(READABLE_WITHIN_MS).then(() => true)]);
}

/** Path of the attached file as the kernel shows it now. */
async function backingFile(device: string): Promise<string | undefined> {
  try {
    const text = await Deno.readTextFile(`/sys/block/${baseName(device)}/loop/backing_file`);
    return text.replace(/\n$/, "");
  } catch {
    // No such attribute while nothing is attached.
    return undefined;
  }
}

/** The end of a path, as much as the kernel keeps: the end tells files apart better than the beginning. */
function shortName(path: string): Uint8Array {
  return new TextEncoder().encode(path).slice(-(NAME_BYTES - 1));
}

function baseName(device: string): string {
  return device.slice(device.lastIndexOf("/") + 1);
}
