/**
 * A volume as a block device of the kernel's ublk driver, and a mounted file system on it. The device outlives
 * the process that serves it: its users wait, and the next process takes it over.
 *
 * The record is written before the device is made, and names it by a random cookie that the driver keeps: a
 * process killed in between leaves a device that its successor knows as its own, and no other is ever touched.
 */
import { need, PsmaError } from "../../core/mod.ts";
import { ublkBlockPath } from "../../sys/mod.ts";
import type {
  Attachment,
  AttachVolume,
  DetachAttachment,
  FrontendAttachment,
  GrownSizes,
} from "./attaching.ts";
import { type AttachmentRecord, saveAttachmentRecord } from "./record.ts";
import type { DataPlane } from "../handle.ts";
import { canServeUblk } from "../host/host.ts";
import { runHostTask } from "../host/process.ts";
import type { ExportInfo } from "../messages.ts";

type UblkExportInfo = Extract<ExportInfo, { frontend: "ublk" }>;

const COOKIE_BYTES = 8;

export const ublkAttachment: FrontendAttachment = {
  fault: () => canServeUblk(),
  resume,
  clean,
  attach,
  grow,
  detach,
};

async function attach(options: AttachVolume): Promise<Attachment> {
  const { plane, volume, directory } = options;
  const cookie = randomCookie();
  saveAttachmentRecord(directory, { frontend: "ublk", exports: [], details: { cookie } });
  const { sector_bytes, read_only, size_bytes, max_size_bytes, max_io_bytes } = await plane
    .command("volumeGeometry", { name: volume });
  await using undo = new AsyncDisposableStack();
  const { device, depth } = await runHostTask("ublkAdd", {
    cookie,
    depth: options.queueDepth,
    max_io_bytes,
    size_bytes,
    max_size_bytes,
    sector_bytes,
    read_only,
  });
  const path = ublkBlockPath(device);
  undo.defer(async () => void await runHostTask("ublkDelete", { path }));
  await plane.command("exportUblk", { name: volume, device, depth });
  undo.defer(async () => {
    // The driver hands our commands back only when it is told that the device has come to its end.
    await runHostTask("ublkStop", { volume, path, mount: null, force: true });
    await plane.command("unexportUblk", { name: volume });
  });
  const attachment = await start(options, { device, cookie, size_bytes });
  undo.move();
  return attachment;
}

/** Ends the device's waiting for its server, and puts what is attached on record. */
async function start(
  options: AttachVolume,
  { device, cookie, size_bytes }: { device: number; cookie: string; size_bytes: number },
): Promise<Attachment> {
  const { volume, directory, filesystem } = options;
  const { path } = await runHostTask("ublkStart", {
    volume,
    directory,
    device,
    pid: Deno.pid,
    size_bytes,
    filesystem,
  });
  const mount = filesystem === null ? {} : { mount: filesystem.mount };
  const exports = [{ frontend: "ublk", device: path, ...mount } as const];
  saveAttachmentRecord(directory, { frontend: "ublk", exports, details: { cookie } });
  return { volume, directory, frontend: "ublk", exports };
}

/** Without the driver there is no device to go on with, and none to clean up. */
async function resume(
  options: AttachVolume,
  { details }: AttachmentRecord,
): Promise<Attachment | undefined> {
  const { plane, volume } = options;
  const cookie = cookieIn(details);
  if (cookie === undefined || canServeUblk() !== undefined) return undefined;
  const found = await runHostTask("ublkRecover", { cookie, pid: Deno.pid });
  if (found === null) return undefined;
  const { device, depth } = found;
  await plane.command("exportUblk", { name: volume, device, depth });
  const { size_bytes } = await plane.command("volumeGeometry", { name: volume });
  return await start(options, { device, cookie, size_bytes });
}

async function clean(
  _options: AttachVolume,
  record: AttachmentRecord | undefined,
): Promise<readonly string[]> {
  const cookie = cookieIn(record?.details ?? {});
  if (cookie === undefined || canServeUblk() !== undefined) return [];
  return (await runHostTask("ublkClean", { cookie })).removed;
}

async function grow(
  plane: DataPlane,
  attachment: Attachment,
  { growMounted }: { growMounted: boolean },
): Promise<GrownSizes> {
  const { volume } = attachment, { device, mount } = exportOf(attachment);
  const { size_bytes } = await plane.command("volumeStatus", { name: volume });
  return await runHostTask("ublkGrow", {
    volume,
    path: device,
    size_bytes,
    mount: growMounted ? mount ?? null : null,
  });
}

async function detach({ plane, attachment, force }: DetachAttachment): Promise<readonly string[]> {
  const { volume } = attachment, { device: path, mount = null } = exportOf(attachment);
  await refuseUnanswered(plane, volume);
  const { forced } = await runHostTask("ublkStop", { volume, path, mount, force });
  await plane.command("unexportUblk", { name: volume });
  await runHostTask("ublkDelete", { path });
  return forced;
}

/** Stopping a device waits for its requests, and they for the store: for as long as that is away. */
async function refuseUnanswered(plane: DataPlane, volume: string): Promise<void> {
  const { connected, active } = await plane.command("volumeStatus", { name: volume });
  if (connected) return;
  throw new PsmaError(
    "store/unreachable",
    `Cannot detach ${volume}: store ${active.store} does not answer, and requests wait for it`,
    {
      hint: "Try again when it is back. An agent that is ended leaves the device to the next one.",
    },
  );
}

function exportOf({ exports }: Attachment): UblkExportInfo {
  return need(exports.find((one) => one.frontend === "ublk"), "the ublk export");
}

function randomCookie(): string {
  return crypto.getRandomValues(new Uint8Array(COOKIE_BYTES)).toHex();
}

function cookieIn(details: AttachmentRecord["details"]): string | undefined {
  const { cookie } = details;
  return typeof cookie === "string" && /^[0-9a-f]{16}$/.test(cookie) ? cookie : undefined;
}
