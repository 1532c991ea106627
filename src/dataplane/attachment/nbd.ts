/**
 * A volume as an export of the agent's NBD server, for virtual machines and remote clients; where it is asked
 * for, also as a device of this machine's kernel.
 */
import { PsmaError } from "../../core/mod.ts";
import type {
  AskedOfFrontend,
  Attachment,
  AttachVolume,
  DetachAttachment,
  FrontendAttachment,
  GrownSizes,
} from "./attaching.ts";
import {
  attachNbdDevice,
  cleanNbdDevices,
  detachNbdDevice,
  deviceOf,
  growNbdDevice,
  resumeNbdDevice,
} from "./nbd_device.ts";
import { canServeNbdDevice, type HostFault } from "../host/host.ts";
import type { AttachmentRecord } from "./record.ts";
import type { DataPlane } from "../handle.ts";

export const nbdAttachment: FrontendAttachment = {
  fault,
  resume,
  clean: cleanNbdDevices,
  attach,
  grow,
  detach,
};

function fault({ device, filesystem }: AskedOfFrontend): HostFault | undefined {
  if (device) return canServeNbdDevice();
  return filesystem === null ? undefined : {
    code: "state/frontend",
    why: "an NBD export has no device to mount a file system from",
    advice: "add device: true, or take ublk, fuse or auto",
  };
}

/** Clients connect again by themselves; a device is given its new connection. */
async function resume(
  options: AttachVolume,
  record: AttachmentRecord,
): Promise<Attachment | undefined> {
  if (!options.device) return undefined;
  return await onExport(options, (uri) => resumeNbdDevice(options, record, uri));
}

async function attach(options: AttachVolume): Promise<Attachment> {
  return await onExport(options, async (uri): Promise<Attachment> => {
    if (options.device) return await attachNbdDevice(options, uri);
    const { plane, volume, directory } = options;
    const uris = [uri, plane.tlsUri(volume)].filter((one) => one !== undefined);
    const exports = uris.map((uri) => ({ frontend: "nbd", uri }) as const);
    return { volume, directory, frontend: "nbd", exports };
  });
}

/** Exports the volume for what stands on the export; takes it back when that fails or comes to nothing. */
async function onExport<T extends Attachment | undefined>(
  { plane, volume }: AttachVolume,
  action: (uri: string) => Promise<T>,
): Promise<T> {
  await using undo = new AsyncDisposableStack();
  const description = "PSMA volume";
  const { uri } = await plane.command("exportNbd", { name: volume, description });
  undo.defer(async () => void await plane.command("unexportNbd", { name: volume }));
  const attachment = await action(uri);
  if (attachment !== undefined) undo.move();
  return attachment;
}

/** NBD tells a remote client its size when it connects. */
async function grow(
  plane: DataPlane,
  attachment: Attachment,
  options: { growMounted: boolean },
): Promise<GrownSizes> {
  if (deviceOf(attachment.exports)) return await growNbdDevice(plane, attachment, options);
  return { device_bytes: null, filesystem_bytes: null };
}

async function detach(options: DetachAttachment): Promise<readonly string[]> {
  const { plane, attachment: { volume, exports }, force } = options;
  const hasDevice = deviceOf(exports) !== undefined;
  const { sessions } = await plane.command("nbdSessions", { name: volume });
  // The device is one of them.
  const others = sessions - (hasDevice ? 1 : 0);
  if (others > 0 && !force) {
    const clients = others === 1 ? "a client is connected" : `${others} clients are connected`;
    const uri = exports.find((one) => one.frontend === "nbd")?.uri ?? "its export";
    throw new PsmaError("state/busy", `Cannot detach ${volume}: ${clients} to ${uri}`, {
      hint: `Disconnect first, or cut the connection: psma volume detach ${volume} --force`,
    });
  }
  const forced = hasDevice ? await detachNbdDevice(options) : [];
  await plane.command("unexportNbd", { name: volume });
  return forced;
}
