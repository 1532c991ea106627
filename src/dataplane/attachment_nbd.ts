/** A volume as an export of the agent's NBD server, for virtual machines and remote clients. */
import { PsmaError } from "../core/mod.ts";
import type {
  Attachment,
  AttachVolume,
  DetachAttachment,
  FrontendAttachment,
  GrownSizes,
} from "./attaching.ts";

export const nbdAttachment: FrontendAttachment = {
  fault: ({ filesystem }) =>
    filesystem === null ? undefined : "an NBD export has no device to mount a file system from",
  // Clients connect again by themselves.
  resume: () => Promise.resolve(undefined),
  clean: () => Promise.resolve(),
  attach,
  // NBD tells a client its size when it connects.
  grow: (): Promise<GrownSizes> => Promise.resolve({ device_bytes: null, filesystem_bytes: null }),
  detach,
};

async function attach({ plane, volume, directory }: AttachVolume): Promise<Attachment> {
  const { uri } = await plane.command("exportNbd", { name: volume, description: "PSMA volume" });
  const uris = [uri, plane.tlsUri(volume)].filter((one) => one !== undefined);
  const exports = uris.map((uri) => ({ frontend: "nbd", uri }) as const);
  return { volume, directory, frontend: "nbd", exports };
}

async function detach({ plane, attachment, force }: DetachAttachment): Promise<void> {
  const { volume, exports } = attachment;
  const { sessions } = await plane.command("nbdSessions", { name: volume });
  if (sessions > 0 && !force) {
    const clients = sessions === 1 ? "a client is connected" : `${sessions} clients are connected`;
    const uri = exports.find((one) => one.frontend === "nbd")?.uri ?? "its export";
    throw new PsmaError("state/busy", `Cannot detach ${volume}: ${clients} to ${uri}`, {
      hint: `Disconnect first, or cut the connection: psma volume detach ${volume} --force`,
    });
  }
  await plane.command("unexportNbd", { name: volume });
}
