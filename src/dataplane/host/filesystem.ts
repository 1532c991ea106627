/** A file system on a served device, as the host tasks of every frontend put it there and take it away. */
import { PsmaError, toPsmaError } from "../../core/mod.ts";
import {
  detectFilesystem,
  formatFilesystem,
  growFilesystem,
  listMounts,
  mountFilesystem,
  mountsAt,
  syncFilesystem,
  unmountFilesystem,
} from "../../sys/mod.ts";

/** A file system on a volume: made on a blank device, then mounted. */
export interface MountedFilesystem {
  readonly type: string;
  readonly mount: string;
}

export interface PutFilesystem {
  readonly volume: string;
  readonly device: string;
  readonly filesystem: MountedFilesystem;
  /** The volume's, where its device is larger. */
  readonly sizeBytes?: number;
}

const EBUSY = "sys/errno-16";

/**
 * Makes the file system on a blank device, and mounts it.
 * @throws {PsmaError} state/filesystem when there is another one, and what mkfs and the mount throw.
 */
export async function putFilesystem(options: PutFilesystem): Promise<void> {
  const { device, filesystem: { type, mount } } = options;
  await prepareFilesystem(options);
  await mountFilesystem({ device, at: mount, type });
}

async function prepareFilesystem(options: PutFilesystem): Promise<void> {
  const { volume, device, filesystem: { type }, sizeBytes } = options;
  const size = sizeBytes === undefined ? {} : { sizeBytes };
  const contents = await detectFilesystem(device, size);
  if (contents === type) return;
  if (contents === "blank") return await formatFilesystem(device, type, size);
  const found = contents === "other" ? "data of an unknown kind" : contents;
  throw new PsmaError(
    "state/filesystem",
    `Cannot mount ${volume}: it holds ${found}, not ${type}`,
    {
      hint: "Name the file system that is there, or leave filesystem out and use the device.",
    },
  );
}

/**
 * Unmounts. @param force takes it out of the tree under its users, all data synced, instead of refusing.
 * @returns whether it was forced. @throws {PsmaError} state/busy
 */
export function unmount(volume: string, mount: string, force: boolean): boolean {
  try {
    unmountFilesystem(mount);
    return false;
  } catch (error) {
    if (toPsmaError(error).code !== EBUSY) throw error;
    if (!force) throw busyError(volume, mount);
    syncFilesystem(mount);
    unmountFilesystem(mount, { lazy: true });
    return true;
  }
}

/** Whether the file system at `mount` is the one on `device`. */
export function isMountedFrom(device: string, mount: string): boolean {
  return mountsAt(mount).some(({ source }) => source === device);
}

/** Takes whatever is mounted from a device that nobody serves out of the tree. @returns where it was. */
export function unmountAllFrom(device: string): string[] {
  const mounts = listMounts().filter(({ source }) => source === device).map(({ at }) => at)
    .reverse();
  for (const at of mounts) unmountFilesystem(at, { lazy: true });
  return mounts;
}

/** The sizes after a device has grown; its file system is grown too, where it is mounted. */
export async function growMounted(
  mount: string | null,
  device_bytes: number,
  options: { readonly sizeBytes?: number } = {},
): Promise<{ device_bytes: number; filesystem_bytes: number | null }> {
  if (mount === null) return { device_bytes, filesystem_bytes: null };
  const { after_bytes } = await growFilesystem(mount, options);
  return { device_bytes, filesystem_bytes: after_bytes };
}

/** @param users by name, where they are known. */
export function busyError(volume: string, what: string, users: readonly string[] = []): PsmaError {
  const by = users.length === 0 ? "" : ` by ${users.join(", ")}`;
  return new PsmaError("state/busy", `Cannot detach ${volume}: ${what} is in use${by}`, {
    hint: `Stop the programs that use it; lsof ${what} names them.`,
  });
}
