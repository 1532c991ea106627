/**
 * A volume as a block device of the kernel's own NBD client, connected to this agent's NBD server, and a
 * mounted file system on it. The device outlives the process that serves it: its users wait, and the next
 * process gives it a new connection.
 *
 * The kernel keeps the name of the server that a device belongs to: here the volume's directory. So a process
 * killed half-way leaves a device that its successor knows as its own, and no other is ever touched.
 */
import { need, PsmaError } from "../../core/mod.ts";
import { parseNbdUri } from "../../backend/mod.ts";
import type { NbdExportPlace } from "../../sys/mod.ts";
import type { Attachment, AttachVolume, DetachAttachment, GrownSizes } from "./attaching.ts";
import { type AttachmentRecord, saveAttachmentRecord } from "./record.ts";
import type { DataPlane } from "../handle.ts";
import { canServeNbdDevice } from "../host/host.ts";
import { runHostTask } from "../host/process.ts";
import { leftNbdDevices, nbdBackendOf } from "../host/tasks_nbd.ts";
import type { ExportInfo } from "../messages.ts";

type NbdDeviceInfo = Extract<ExportInfo, { frontend: "nbd" }> & { readonly device: string };

/** Whether an attachment has a device of the kernel's. */
export function deviceOf(exports: readonly ExportInfo[]): NbdDeviceInfo | undefined {
  const isDevice = (one: ExportInfo): one is NbdDeviceInfo =>
    one.frontend === "nbd" && one.device !== undefined;
  return exports.find(isDevice);
}

/** @param uri where the volume is exported now. */
export async function attachNbdDevice(options: AttachVolume, uri: string): Promise<Attachment> {
  const { plane, volume, directory, filesystem } = options;
  const { sector_bytes } = await plane.command("volumeGeometry", { name: volume });
  const place = placeOf(directory, uri);
  const { device } = await runHostTask("nbdAttach", { volume, place, sector_bytes, filesystem });
  return record(options, { uri, device });
}

/** @returns undefined where the device is gone, or what is asked for is not what is attached. */
export async function resumeNbdDevice(
  options: AttachVolume,
  { exports }: AttachmentRecord,
  uri: string,
): Promise<Attachment | undefined> {
  const { volume, directory, filesystem } = options;
  const known = deviceOf(exports);
  if (known === undefined || canServeNbdDevice() !== undefined) return undefined;
  if (known.mount !== filesystem?.mount) return undefined;
  const { device } = known, place = placeOf(directory, uri);
  const { resumed } = await runHostTask("nbdResume", { volume, device, place, filesystem });
  return resumed ? record(options, { uri, device }) : undefined;
}

/** Found by the name that their server gave itself, whatever is on record. */
export async function cleanNbdDevices({ directory }: AttachVolume): Promise<readonly string[]> {
  const backend = nbdBackendOf(directory);
  if (leftNbdDevices(backend).length === 0) return [];
  return (await runHostTask("nbdClean", { backend })).removed;
}

export async function growNbdDevice(
  plane: DataPlane,
  attachment: Attachment,
  { growMounted }: { growMounted: boolean },
): Promise<GrownSizes> {
  const { volume, directory } = attachment, { device, mount } = infoOf(attachment);
  const { size_bytes } = await plane.command("volumeStatus", { name: volume });
  return await runHostTask("nbdGrow", {
    device,
    backend: nbdBackendOf(directory),
    size_bytes,
    mount: growMounted ? mount ?? null : null,
  });
}

/** The export stays. */
export async function detachNbdDevice(
  { attachment, force }: DetachAttachment,
): Promise<readonly string[]> {
  const { volume, directory } = attachment, { device, mount = null } = infoOf(attachment);
  const backend = nbdBackendOf(directory);
  const { forced } = await runHostTask("nbdDetach", { volume, device, backend, mount, force });
  return forced;
}

function record(
  { plane, volume, directory, filesystem }: AttachVolume,
  { uri, device }: { uri: string; device: string },
): Attachment {
  const mount = filesystem === null ? {} : { mount: filesystem.mount };
  const tlsUri = plane.tlsUri(volume);
  const exports: ExportInfo[] = [
    { frontend: "nbd", uri, device, ...mount },
    ...(tlsUri === undefined ? [] : [{ frontend: "nbd", uri: tlsUri } as const]),
  ];
  saveAttachmentRecord(directory, { frontend: "nbd", exports, details: {} });
  return { volume, directory, frontend: "nbd", exports };
}

function placeOf(directory: string, uri: string): NbdExportPlace {
  const { address, exportName } = parseNbdUri(uri);
  if (!("path" in address)) {
    throw new PsmaError("state/not-listening", `Cannot attach ${exportName}: no Unix socket`);
  }
  return { socket: address.path, exportName, backend: nbdBackendOf(directory) };
}

function infoOf({ exports }: Attachment): NbdDeviceInfo {
  return need(deviceOf(exports), "the NBD device");
}
