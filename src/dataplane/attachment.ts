/**
 * From an open volume to something that an application uses: an export, its loop device, its mounted file
 * system; growing all three; and taking them away again. Everything that touches the served file or device is
 * a host task, in a process of its own.
 *
 * Faults: attaching half-way is undone. Leftovers of a killed process (a mount whose server is gone, a loop
 * device on it) are removed before a new attach; nobody can have used them, for every access fails.
 */
import { type Log, PsmaError } from "../core/mod.ts";
import type { DataPlane } from "./handle.ts";
import { canServeFuse } from "./host.ts";
import { runHostTask } from "./host_process.ts";
import type { MountedFilesystem } from "./host_tasks.ts";
import type { ExportInfo } from "./messages.ts";

export interface AttachVolume {
  readonly plane: DataPlane;
  /** Open already. */
  readonly volume: string;
  readonly frontend: "auto" | "fuse" | "nbd";
  /** The volume's own directory; the served file lives in it. */
  readonly directory: string;
  /** Made on a blank volume, then mounted; null leaves the device raw. */
  readonly filesystem: MountedFilesystem | null;
  readonly log: Log;
}

/** What is attached, as `growAttachment` and `detachAttachment` need it. */
export interface Attachment {
  readonly volume: string;
  readonly exports: readonly ExportInfo[];
}

const SERVED_FILE = "device";

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
  const { device } = await runHostTask("attach", { volume, path, filesystem });
  undo.move();
  const mount = filesystem === null ? {} : { mount: filesystem.mount };
  return { volume, exports: [{ frontend: "fuse", path, device, ...mount }] };
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
  const { device, path } = exported;
  const mount = growMounted ? exported.mount ?? null : null;
  return await runHostTask("grow", { device, path, mount });
}

export interface DetachAttachment {
  readonly plane: DataPlane;
  readonly attachment: Attachment;
  readonly log: Log;
  /**
   * What is in use is let go instead of refused: a file system is synced and taken out of the tree, an NBD
   * client's connection is cut. Its users see I/O errors; its bytes are consistent.
   */
  readonly force?: boolean;
}

/**
 * Unmounts, gives the loop device back and stops the export, in this order. What is not there is no error.
 * @throws {PsmaError} state/busy when a program uses the file system, the device or the export; then it
 * stays attached.
 */
export async function detachAttachment(options: DetachAttachment): Promise<void> {
  const { attachment: { exports } } = options;
  for (const exported of exports) {
    if (exported.frontend === "nbd") await detachNbd(options, exported);
    else await detachFuse(options, exported);
  }
}

async function detachNbd(
  { plane, attachment: { volume }, force = false }: DetachAttachment,
  { uri }: { uri: string },
): Promise<void> {
  const { sessions } = await plane.command("nbdSessions", { name: volume });
  if (sessions > 0 && !force) {
    const clients = sessions === 1 ? "a client is connected" : `${sessions} clients are connected`;
    throw new PsmaError("state/busy", `Cannot detach ${volume}: ${clients} to ${uri}`, {
      hint: `Disconnect first, or cut the connection: psma volume detach ${volume} --force`,
    });
  }
  await plane.command("unexportNbd", { name: volume });
}

async function detachFuse(
  { plane, attachment: { volume }, log, force = false }: DetachAttachment,
  { device, mount }: { device: string; mount?: string },
): Promise<void> {
  const { forced } = await runHostTask("detach", { volume, device, mount: mount ?? null, force });
  for (const what of forced) {
    log.warn("let go of what is in use, all data synced", { volume, what });
  }
  await plane.command("unexportFuse", { name: volume });
}

/**
 * Removes what a killed process left of a volume's export. Only right while nobody serves the volume.
 * @throws {PsmaError} sys/permission, sys/...
 */
export async function cleanStale(
  { directory, volume, log }: { directory: string; volume: string; log: Log },
): Promise<void> {
  const { mounts, loops } = await runHostTask("clean", { path: servedFile(directory) });
  if (mounts.length + loops.length === 0) return;
  const left = [...mounts, ...loops].join(" ");
  log.warn("removed what an earlier process left behind", { volume, left });
}

function servedFile(directory: string): string {
  return `${directory}/${SERVED_FILE}`;
}
