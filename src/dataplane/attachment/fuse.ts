/**
 * A volume as a file served over FUSE with a loop device on it, and a mounted file system on that.
 *
 * All three outlive a killed agent, because a process of its own holds the connection (frontend/fuse/held.ts):
 * their users wait, and the next agent goes on serving them. Where the connection could not be held or was
 * ended, what is left is removed.
 */
import { need } from "../../core/mod.ts";
import { findLoops, mountsAt } from "../../sys/mod.ts";
import type {
  Attachment,
  AttachVolume,
  DetachAttachment,
  FrontendAttachment,
  GrownSizes,
} from "./attaching.ts";
import { type AttachmentRecord, saveAttachmentRecord } from "./record.ts";
import { canServeFuse } from "../host/host.ts";
import { runHostTask } from "../host/process.ts";
import type { ExportInfo } from "../messages.ts";

type FuseExportInfo = Extract<ExportInfo, { frontend: "fuse" }>;

const SERVED_FILE = "device";

export const fuseAttachment: FrontendAttachment = {
  fault: () => canServeFuse(),
  resume,
  clean,
  attach,
  grow,
  detach,
};

async function resume(
  options: AttachVolume,
  record: AttachmentRecord,
): Promise<Attachment | undefined> {
  const { plane, volume, directory } = options;
  const path = servedFile(directory), { exports } = record;
  const { taken } = await plane.command("takeOverFuse", { name: volume, path });
  if (!taken) return undefined;
  const attachment: Attachment = { volume, directory, frontend: "fuse", exports };
  if (await stands(exportOf(attachment))) return attachment;
  // Somebody was taking it away, or has since: that is brought to its end, unless it is in use.
  await detach({ plane, attachment, force: false });
  return undefined;
}

/** Whether device and mount are what they were. Asks the kernel's lists: the device itself is not touched here. */
async function stands({ path, device, mount }: FuseExportInfo): Promise<boolean> {
  if (!(await findLoops(path)).includes(device)) return false;
  return mount === undefined || mountsAt(mount).some(({ source }) => source === device);
}

/** Found by the path: a mount whose server is gone, a loop device on it. */
async function clean({ directory }: AttachVolume): Promise<readonly string[]> {
  const { mounts, loops } = await runHostTask("clean", { path: servedFile(directory) });
  return [...mounts, ...loops];
}

async function attach(options: AttachVolume): Promise<Attachment> {
  const { plane, volume, directory, filesystem } = options;
  const path = servedFile(directory);
  await using undo = new AsyncDisposableStack();
  await plane.command("exportFuse", { name: volume, path });
  undo.defer(async () => void await plane.command("unexportFuse", { name: volume }));
  const { device } = await runHostTask("attach", { volume, path, filesystem });
  const mount = filesystem === null ? {} : { mount: filesystem.mount };
  const exports = [{ frontend: "fuse", path, device, ...mount } as const];
  saveAttachmentRecord(directory, { frontend: "fuse", exports, details: {} });
  undo.move();
  return { volume, directory, frontend: "fuse", exports };
}

async function grow(
  _plane: unknown,
  attachment: Attachment,
  { growMounted }: { growMounted: boolean },
): Promise<GrownSizes> {
  const { device, path, mount } = exportOf(attachment);
  return await runHostTask("grow", { device, path, mount: growMounted ? mount ?? null : null });
}

async function detach(
  { plane, attachment, force }: Omit<DetachAttachment, "log">,
): Promise<readonly string[]> {
  const { volume } = attachment, { path, device, mount } = exportOf(attachment);
  const task = { volume, path, device, mount: mount ?? null, force };
  const { forced } = await runHostTask("detach", task);
  await plane.command("unexportFuse", { name: volume });
  return forced;
}

function exportOf({ exports }: Pick<Attachment, "exports">): FuseExportInfo {
  return need(exports.find((one) => one.frontend === "fuse"), "the FUSE export");
}

function servedFile(directory: string): string {
  return `${directory}/${SERVED_FILE}`;
}
