/**
 * From an open volume to something that an application uses: an export, its loop device, its mounted file
 * system; growing all three; and taking them away again. On the main thread: the kernel reads the served
 * device in many of these calls, and the data-plane thread must be free to answer.
 *
 * Faults: attaching half-way is undone. Leftovers of a killed process (a mount whose server is gone, a loop
 * device on it) are removed before a new attach; nobody can have used them, for every access fails.
 */
import { type Log, PsmaError, systemClock, toPsmaError } from "../core/mod.ts";
import {
  attachLoop,
  detachLoop,
  detectFilesystem,
  formatFilesystem,
  growFilesystem,
  growLoop,
  mountFilesystem,
  removeStale,
  syncFilesystem,
  unmountFilesystem,
} from "../sys/mod.ts";
import type { DataPlane } from "./handle.ts";
import { canServeFuse } from "./host.ts";
import type { ExportInfo } from "./messages.ts";

export interface AttachVolume {
  readonly plane: DataPlane;
  /** Open already. */
  readonly volume: string;
  readonly frontend: "auto" | "fuse" | "nbd";
  /** The volume's own directory; the served file lives in it. */
  readonly directory: string;
  /** Made on a blank volume, then mounted; null leaves the device raw. */
  readonly filesystem: { readonly type: string; readonly mount: string } | null;
  readonly log: Log;
}

/** What is attached, as `growAttachment` and `detachAttachment` need it. */
export interface Attachment {
  readonly volume: string;
  readonly exports: readonly ExportInfo[];
}

const SERVED_FILE = "device";
const EBUSY = "sys/errno-16";
const RELEASE_TRIES = 40, RELEASE_EVERY_MS = 50;

/**
 * Exports a volume and sets up what the frontend needs. `auto` is fuse where this process may, else nbd.
 * @throws {PsmaError} sys/permission, state/filesystem when the volume holds another file system,
 * and what the export, the loop device, mkfs and the mount throw; then nothing is left attached.
 */
export async function attachVolume(options: AttachVolume): Promise<Attachment> {
  const { plane, volume, filesystem, frontend } = options;
  const fault = canServeFuse();
  const fuse = frontend === "fuse" || (frontend === "auto" && fault === undefined);
  if (fuse) return await attachFuse(options);
  if (filesystem !== null) {
    throw new PsmaError("sys/permission", `Cannot mount ${volume}: ${fault ?? "it is on nbd"}`, {
      hint: "A file system needs frontend fuse: run psma as root on a machine with fuse and loop.",
    });
  }
  const { uri } = await plane.command("exportNbd", { name: volume, description: "PSMA volume" });
  return { volume, exports: [{ frontend: "nbd", uri }] };
}

async function attachFuse(options: AttachVolume): Promise<Attachment> {
  const { plane, volume, directory, filesystem } = options;
  await cleanStale(options);
  const path = servedFile(directory);
  await using undo = new AsyncDisposableStack();
  await plane.command("exportFuse", { name: volume, path });
  undo.defer(async () => void await plane.command("unexportFuse", { name: volume }));
  const { device } = await attachLoop({ path });
  undo.defer(async () => void await detachLoop(device));
  const exported = { frontend: "fuse", path, device } as const;
  if (filesystem === null) {
    undo.move();
    return { volume, exports: [exported] };
  }
  await prepareFilesystem(device, filesystem.type, volume);
  await mountFilesystem({ device, at: filesystem.mount, type: filesystem.type });
  undo.move();
  return { volume, exports: [{ ...exported, mount: filesystem.mount }] };
}

/** Makes the file system on a blank device. @throws {PsmaError} state/filesystem when there is another one. */
async function prepareFilesystem(device: string, type: string, volume: string): Promise<void> {
  const contents = await detectFilesystem(device);
  if (contents === type) return;
  if (contents === "blank") return await formatFilesystem(device, type);
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
 * Announces a volume's new size: the loop device takes it, then the file system, where PSMA mounted one.
 * Repeating it is harmless. @param growMounted false leaves the file system to the operator.
 * @returns bytes of the device and, where it was grown, of the file system as statfs counts them.
 * @throws {PsmaError} timeout/loop, sys/permission where ext4 asks for CAP_SYS_RESOURCE, sys/...
 */
export async function growAttachment(
  attachment: Attachment,
  { growMounted = true }: { growMounted?: boolean } = {},
): Promise<{ device_bytes: number | null; filesystem_bytes: number | null }> {
  const exported = attachment.exports.find(({ frontend }) => frontend === "fuse");
  if (exported?.frontend !== "fuse") return { device_bytes: null, filesystem_bytes: null };
  const device_bytes = await growLoop(exported.device, exported.path);
  if (exported.mount === undefined || !growMounted) return { device_bytes, filesystem_bytes: null };
  const { after_bytes } = await growFilesystem(exported.mount);
  return { device_bytes, filesystem_bytes: after_bytes };
}

export interface DetachAttachment {
  readonly plane: DataPlane;
  readonly attachment: Attachment;
  readonly log: Log;
  /**
   * The process is ending: a file system in use is synced and taken out of the tree instead of refused.
   * Its users see I/O errors; its bytes are consistent.
   */
  readonly force?: boolean;
}

/**
 * Unmounts, gives the loop device back and stops the export, in this order. What is not there is no error.
 * @throws {PsmaError} state/busy when a program uses the file system or device; then it stays attached.
 */
export async function detachAttachment(options: DetachAttachment): Promise<void> {
  const { plane, attachment: { volume, exports } } = options;
  for (const exported of exports) {
    if (exported.frontend === "nbd") await plane.command("unexportNbd", { name: volume });
    else await detachFuse(options, exported);
  }
}

async function detachFuse(
  { plane, attachment: { volume }, log, force = false }: DetachAttachment,
  { device, mount }: { device: string; mount?: string },
): Promise<void> {
  if (mount !== undefined) await unmount(volume, mount, { force, log });
  if (!await letGo(device)) {
    if (!force) throw busyError(volume, device);
    log.warn("stopped serving a device that is in use", { volume, device });
  }
  await plane.command("unexportFuse", { name: volume });
}

/** Device managers open a device for a moment when it changes: that is not a user. @returns whether it is free. */
async function letGo(device: string): Promise<boolean> {
  for (let tries = 0; tries < RELEASE_TRIES; tries++) {
    if (await detachLoop(device)) return true;
    await systemClock.sleep(RELEASE_EVERY_MS);
  }
  return false;
}

async function unmount(
  volume: string,
  mount: string,
  { force, log }: { force: boolean; log: Log },
): Promise<void> {
  try {
    await unmountFilesystem(mount);
  } catch (error) {
    if (toPsmaError(error).code !== EBUSY) throw error;
    if (!force) throw busyError(volume, mount);
    await syncFilesystem(mount);
    await unmountFilesystem(mount, { lazy: true });
    log.warn("unmounted under its users, all data synced", { volume, mount });
  }
}

function busyError(volume: string, what: string): PsmaError {
  return new PsmaError("state/busy", `Cannot detach ${volume}: ${what} is in use`, {
    hint: `Stop the programs that use it; lsof ${what} names them.`,
  });
}

/**
 * Removes what a killed process left of a volume's export. Only right while nobody serves the volume.
 * @throws {PsmaError} sys/permission, sys/...
 */
export async function cleanStale(
  { directory, volume, log }: { directory: string; volume: string; log: Log },
): Promise<void> {
  const { mounts, loops } = await removeStale(servedFile(directory));
  if (mounts.length + loops.length === 0) return;
  const left = [...mounts, ...loops].join(" ");
  log.warn("removed what an earlier process left behind", { volume, left });
}

function servedFile(directory: string): string {
  return `${directory}/${SERVED_FILE}`;
}
