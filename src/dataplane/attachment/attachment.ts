/**
 * From an open volume to something that an application uses: an export, the device on it, its mounted file
 * system; growing all three; and taking them away again. Each frontend does it in its own way; here one is
 * chosen. Everything that touches a served file or device is a host task, in a process of its own.
 *
 * Faults: attaching half-way is undone. What an earlier process left is gone on with where it still stands,
 * else removed before a new attach; nobody can have used it then, for every access fails.
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
import { fuseAttachment } from "./fuse.ts";
import { nbdAttachment } from "./nbd.ts";
import { ublkAttachment } from "./ublk.ts";
import { type AttachmentRecord, loadAttachmentRecord, removeAttachmentRecord } from "./record.ts";
import type { DataPlane } from "../handle.ts";
import type { HostFault } from "../host/host.ts";
import type { FrontendName } from "../messages.ts";

/** In the order in which `auto` prefers them. */
const FRONTENDS: Readonly<Record<FrontendName, FrontendAttachment>> = {
  ublk: ublkAttachment,
  fuse: fuseAttachment,
  nbd: nbdAttachment,
};
const NAMES = Object.keys(FRONTENDS) as readonly FrontendName[];

/**
 * Attaches a volume, or goes on serving what a former process had attached.
 * @throws {PsmaError} state/frontend, sys/permission, state/filesystem when the volume holds another file system,
 * and what the export, the device, mkfs and the mount throw; then nothing is left attached.
 */
export async function attachVolume(options: AttachVolume): Promise<Attachment> {
  const { directory } = options;
  const record = loadAttachmentRecord(directory);
  const attachment = await resumeAttachment(options, record) ?? await attachAnew(options, record);
  const { frontend, exports } = attachment;
  return { volume: options.volume, directory, frontend, exports };
}

async function resumeAttachment(
  options: AttachVolume,
  record: AttachmentRecord | undefined,
): Promise<Attachment | undefined> {
  if (record === undefined) return undefined;
  if (options.frontend !== "auto" && options.frontend !== record.frontend) return undefined;
  const resumed = await frontendOf(record.frontend)?.resume(options, record);
  if (resumed) options.log.info("took over what is attached", { volume: options.volume });
  return resumed;
}

async function attachAnew(
  options: AttachVolume,
  record: AttachmentRecord | undefined,
): Promise<Attachment> {
  await removeLeft(options, record);
  return await choose(options).attach(options);
}

async function removeLeft(
  options: AttachVolume,
  record: AttachmentRecord | undefined,
): Promise<void> {
  const { volume, log } = options;
  for (const [name, frontend] of Object.entries(FRONTENDS)) {
    const left = await frontend.clean(options, record?.frontend === name ? record : undefined);
    if (left.length === 0) continue;
    log.warn("removed what an earlier process left behind", { volume, left: left.join(" ") });
  }
  removeAttachmentRecord(options.directory);
}

/** What a configuration or an order asks for, before there is a volume. */
export type AskedFrontend = AskedOfFrontend & Pick<AttachVolume, "frontend">;

/**
 * @returns why a volume cannot be served here as it is asked for; `auto` has a fault only where none can.
 * Looks and tries, changes nothing.
 */
export function frontendFault({ frontend, ...asked }: AskedFrontend): HostFault | undefined {
  return FRONTENDS[chosen({ frontend, ...asked })].fault(asked);
}

/** @throws {PsmaError} state/frontend where this machine lacks what the frontend takes, sys/permission where this process does. */
export function needFrontend(
  { frontend, ...asked }: AskedFrontend,
  { verb, volume }: { verb: string; volume: string },
): void {
  const fault = frontendFault({ frontend, ...asked });
  if (fault === undefined) return;
  const { code, why, advice } = fault;
  throw new PsmaError(code, `Cannot ${verb} ${volume}: ${why}`, {
    hint: frontendHint(frontend, advice),
  });
}

/** One sentence. */
export function frontendHint(frontend: AttachVolume["frontend"], advice: string): string {
  return `For frontend: ${frontend}, ${advice}.`;
}

function choose(options: AttachVolume): FrontendAttachment {
  needFrontend(options, { verb: "attach", volume: options.volume });
  return FRONTENDS[chosen(options)];
}

/** Where none can, fuse tells why: it asks for the least of those with a device. */
function chosen({ frontend, ...asked }: AskedFrontend): FrontendName {
  if (frontend !== "auto") return frontend;
  return NAMES.find((name) => FRONTENDS[name].fault(asked) === undefined) ?? "fuse";
}

/** A record of a later version may name a frontend that this one does not know. */
function frontendOf(name: FrontendName): FrontendAttachment | undefined {
  return Object.hasOwn(FRONTENDS, name) ? FRONTENDS[name] : undefined;
}

/** Whether a former process of this boot left a device of this volume, whose users wait. */
export function isLeftAttached(directory: string): boolean {
  return loadAttachmentRecord(directory)?.exports.some((one) => "device" in one) ?? false;
}

/**
 * Takes away what a former process left attached, although its users still wait for it: they see I/O errors
 * from then on. @throws {PsmaError} sys/permission, sys/...
 */
export async function releaseVolume(options: AttachVolume): Promise<void> {
  const record = loadAttachmentRecord(options.directory);
  await removeLeft(options, record);
}

/**
 * Announces a volume's new size: the device takes it, then the file system, where PSMA mounted one.
 * Repeating it is harmless. @param options.growMounted false leaves the file system to the operator.
 * @throws {PsmaError} timeout/loop, sys/permission where ext4 asks for CAP_SYS_RESOURCE, sys/...
 */
export function growAttachment(
  plane: DataPlane,
  attachment: Attachment,
  { growMounted }: { growMounted: boolean },
): Promise<GrownSizes> {
  return FRONTENDS[attachment.frontend].grow(plane, attachment, { growMounted });
}

/**
 * Takes the file system, the device and the export away, in this order. What is not there is no error.
 * @throws {PsmaError} state/busy when a program uses one of them; then it stays attached.
 */
export async function detachAttachment(options: DetachAttachment): Promise<void> {
  const { attachment: { volume, frontend, directory }, log } = options;
  for (const what of await FRONTENDS[frontend].detach(options)) {
    log.warn("let go of what is in use, all data synced", { volume, what });
  }
  removeAttachmentRecord(directory);
}
