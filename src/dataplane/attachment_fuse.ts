/** A volume as a file served over FUSE with a loop device on it, and a mounted file system on that. */
import { need } from "../core/mod.ts";
import type {
  Attachment,
  AttachVolume,
  DetachAttachment,
  FrontendAttachment,
  GrownSizes,
} from "./attaching.ts";
import { canServeFuse } from "./host.ts";
import { runHostTask } from "./host_process.ts";
import type { ExportInfo } from "./messages.ts";

type FuseExportInfo = Extract<ExportInfo, { frontend: "fuse" }>;

const SERVED_FILE = "device";

export const fuseAttachment: FrontendAttachment = {
  fault: canServeFuse,
  // The kernel ends the connection with the process that served it.
  resume: () => Promise.resolve(undefined),
  clean: cleanStale,
  attach,
  grow,
  detach,
};

/** Found by the path: a mount whose server is gone, a loop device on it. */
async function cleanStale({ directory, volume, log }: AttachVolume): Promise<void> {
  const { mounts, loops } = await runHostTask("clean", { path: servedFile(directory) });
  if (mounts.length + loops.length === 0) return;
  const left = [...mounts, ...loops].join(" ");
  log.warn("removed what an earlier process left behind", { volume, left });
}

async function attach(options: AttachVolume): Promise<Attachment> {
  const { plane, volume, directory, filesystem } = options;
  const path = servedFile(directory);
  await using undo = new AsyncDisposableStack();
  await plane.command("exportFuse", { name: volume, path });
  undo.defer(async () => void await plane.command("unexportFuse", { name: volume }));
  const { device } = await runHostTask("attach", { volume, path, filesystem });
  undo.move();
  const mount = filesystem === null ? {} : { mount: filesystem.mount };
  const exports = [{ frontend: "fuse", path, device, ...mount } as const];
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

async function detach({ plane, attachment, log, force }: DetachAttachment): Promise<void> {
  const { volume } = attachment, { device, mount } = exportOf(attachment);
  const { forced } = await runHostTask("detach", { volume, device, mount: mount ?? null, force });
  for (const what of forced) {
    log.warn("let go of what is in use, all data synced", { volume, what });
  }
  await plane.command("unexportFuse", { name: volume });
}

function exportOf({ exports }: Attachment): FuseExportInfo {
  return need(exports.find((one) => one.frontend === "fuse"), "the FUSE export");
}

function servedFile(directory: string): string {
  return `${directory}/${SERVED_FILE}`;
}
