/** Finds and removes what a killed agent left in the kernel: its file mount, and what stands on it. */
import { endHolders } from "./holder.ts";
import { detachLoop, findLoops } from "./loop.ts";
import { abortServedFile, unmountFilesystem } from "./mount.ts";
import { FUSE_TYPE, listMounts, mountsAt, realMountPoint } from "./mountinfo.ts";

export interface Removed {
  readonly mounts: readonly string[];
  readonly loops: readonly string[];
}

/**
 * Removes the leftovers of an export: file systems mounted from loop devices on `path`, those devices, the
 * file mount itself, and the processes that hold its connection. All lazily, so that it also works where nobody answers any more.
 * Only right when nobody serves `path`: programs on those file systems see I/O errors from then on anyway.
 * @param path where the volume's file was mounted. Mounts of other programs there stay.
 * @returns what was removed. @throws {PsmaError} sys/permission, sys/errno-N.
 */
export async function removeStale(path: string): Promise<Removed> {
  const mounts: string[] = [];
  // Found first: the kernel forgets a file's path once its mount has gone.
  const loops = await findLoops(path), subject = realMountPoint(path);
  // The connection goes first: then nothing below waits for a server that cannot answer.
  while (mountsAt(path).at(-1)?.type === FUSE_TYPE) {
    const before = mountsAt(path).length;
    abortServedFile(path);
    // Refused: the ordinary way says why.
    if (mountsAt(path).length === before) unmountFilesystem(path, { lazy: true });
    mounts.push(path);
  }
  // One may hold a connection whose mount has gone already.
  endHolders(subject);
  // The newest first: a mount may stand inside another.
  for (const { at, source } of listMounts().reverse()) {
    if (!loops.includes(source)) continue;
    unmountFilesystem(at, { lazy: true });
    mounts.push(at);
  }
  for (const device of loops) await detachLoop(device);
  return { mounts, loops };
}
