/** What each frontend does to attach a volume; `attachment.ts` chooses among them. */
import type { Log } from "../../core/mod.ts";
import type { AttachmentRecord } from "./record.ts";
import type { DataPlane } from "../handle.ts";
import type { MountedFilesystem } from "../host/filesystem.ts";
import type { HostFault } from "../host/host.ts";
import type { ExportInfo, FrontendName } from "../messages.ts";

export interface AttachVolume {
  readonly plane: DataPlane;
  /** Open already. */
  readonly volume: string;
  readonly frontend: "auto" | FrontendName;
  /** Frontend nbd: a device of this machine's kernel stands on the export. */
  readonly device: boolean;
  /** The volume's own directory; the served file and the record of what is attached live in it. */
  readonly directory: string;
  /** Made on a blank volume, then mounted; null leaves the device raw. */
  readonly filesystem: MountedFilesystem | null;
  /** Requests that a block device may have in flight, where the frontend makes one. */
  readonly queueDepth: number;
  readonly log: Log;
}

/** What decides whether a frontend can serve a volume on this machine. */
export type AskedOfFrontend = Pick<AttachVolume, "device" | "filesystem">;

/** What is attached, as growing and detaching need it. */
export interface Attachment {
  readonly volume: string;
  /** The volume's own. */
  readonly directory: string;
  readonly frontend: FrontendName;
  readonly exports: readonly ExportInfo[];
}

export interface DetachAttachment {
  readonly plane: DataPlane;
  readonly attachment: Attachment;
  readonly log: Log;
  /**
   * What is in use is let go instead of refused: a file system is synced and taken out of the tree, an NBD
   * client's connection is cut. Its users see I/O errors; its bytes are consistent.
   */
  readonly force: boolean;
}

export interface GrownSizes {
  readonly device_bytes: number | null;
  /** As statfs counts them; null where it was not grown. */
  readonly filesystem_bytes: number | null;
}

export interface FrontendAttachment {
  /** @returns why it cannot serve this volume on this machine; undefined when it can. */
  fault(options: AskedOfFrontend): HostFault | undefined;
  /**
   * Goes on serving what an earlier process of this boot left attached. Its users wait until then, and see
   * no error. @returns undefined where nothing of it can be gone on with.
   */
  resume(options: AttachVolume, record: AttachmentRecord): Promise<Attachment | undefined>;
  /**
   * Removes what an earlier process left behind and nobody serves. Its users have errors already.
   * @param record undefined where none is of this boot. @returns what was there. @throws {PsmaError} sys/permission, sys/...
   */
  clean(options: AttachVolume, record: AttachmentRecord | undefined): Promise<readonly string[]>;
  /** Exports the volume and sets up what stands on the export. Half-way is undone. */
  attach(options: AttachVolume): Promise<Attachment>;
  /** Shows a volume's new size to its device and, when asked, to the file system on it. May be repeated. */
  grow(
    plane: DataPlane,
    attachment: Attachment,
    options: { growMounted: boolean },
  ): Promise<GrownSizes>;
  /**
   * @returns what was let go although somebody uses it.
   * @throws {PsmaError} state/busy while somebody uses it, unless forced; then it stays attached.
   */
  detach(options: DetachAttachment): Promise<readonly string[]>;
}
