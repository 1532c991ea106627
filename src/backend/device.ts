/**
 * Bytes on a block device, past the page cache: the calls of `file.ts`, with what is a device's own.
 *
 * The device is claimed for us alone: a mounted one, or one that belongs to a RAID or to another volume, is
 * refused when it is opened. A trim punches (the kernel's write-zeroes with unmap), which reads as zeros on
 * every device; a plain discard would not, so it is never sent. A device that cannot unmap gets zeros, by its
 * own command where it has one. Requests that are no multiple of its logical block are served too
 * (`unaligned.ts`), so that a volume can move here from any other backend.
 * Not promised: that the device shrinks nowhere. Beyond its end everything fails.
 */
import { errnoText, PsmaError, toPsmaError } from "../core/mod.ts";
import { blockDeviceShape, closeFile, directAlignment, openFile } from "../sys/mod.ts";
import type { Extent } from "./backend.ts";
import { FileBackend, type FileBackendOptions, type OpenedFile } from "./file.ts";

const EBUSY = 16;
const PAGE_BYTES = 4096;

export type DeviceBackendOptions = Omit<FileBackendOptions, "direct">;

export class DeviceBackend extends FileBackend {
  /**
   * Claims a block device.
   * @throws {PsmaError} state/in-use when somebody else has it; usage/not-a-device; sys/...
   */
  constructor(options: DeviceBackendOptions) {
    super(options, claim(options.path));
  }

  /** The whole range: a device does not tell what it holds. */
  override dataExtents(from: number, length: number): Promise<readonly Extent[]> {
    return Promise.resolve(length > 0 ? [{ at: from, length }] : []);
  }

  override allocatedBytes(): undefined {
    return undefined;
  }

  /** A device grows outside; here its new size is picked up. */
  protected override lengthen(fd: number, sizeBytes: number): Promise<number> {
    const now = blockDeviceShape(fd)?.sizeBytes ?? 0;
    if (now >= sizeBytes) return Promise.resolve(now);
    return Promise.reject(
      new PsmaError(
        "state/cannot-grow",
        `Cannot grow ${this.description}: it has ${now} bytes, ${sizeBytes} are needed`,
        { hint: "Enlarge the device first, for example with lvextend." },
      ),
    );
  }
}

function claim(path: string): OpenedFile {
  const fd = openClaimed(path);
  const shape = blockDeviceShape(fd);
  if (!shape) {
    closeFile(fd);
    throw new PsmaError("usage/not-a-device", `Cannot use ${path}: it is not a block device`);
  }
  const memoryBytes = directAlignment(fd)?.memoryBytes ?? Math.min(shape.blockBytes, PAGE_BYTES);
  return {
    fd,
    sizeBytes: shape.sizeBytes,
    description: `device ${path}`,
    alignment: { memoryBytes, offsetBytes: shape.blockBytes },
    zeroesFast: false,
  };
}

/** O_EXCL without O_CREAT claims a block device, as a mount does. */
function openClaimed(path: string): number {
  try {
    return openFile(path, { exclusive: true, direct: true });
  } catch (error) {
    if (toPsmaError(error).code !== `sys/errno-${EBUSY}`) throw error;
    throw new PsmaError(
      "state/in-use",
      `Cannot use ${path}: it is mounted, or another program has claimed it (${errnoText(EBUSY)})`,
      { hint: `lsblk ${path} shows by whom.`, cause: error },
    );
  }
}
