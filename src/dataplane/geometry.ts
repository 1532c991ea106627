/** What a block device on a volume has to be like. */
import { errnoText, PsmaError } from "../core/mod.ts";
import { OPERATION } from "../backend/mod.ts";
import {
  allocateMemory,
  sectorBytesIn,
  SUPERBLOCKS_WITHIN_BYTES,
  unmapMemory,
} from "../sys/mod.ts";
import type { DataPlaneContext } from "./context.ts";
import type { VolumeGeometry } from "./messages.ts";
import type { ServedVolume } from "./served_volume.ts";

/**
 * The sector size is what the volume's contents were made for: a file system refuses a device with larger
 * ones. @throws {PsmaError} io/volume when its beginning cannot be read.
 */
export async function geometryOf(
  { volume, maxSizeBytes }: ServedVolume,
  { calls, requests }: DataPlaneContext,
): Promise<VolumeGeometry> {
  const length = Math.min(SUPERBLOCKS_WITHIN_BYTES, volume.sizeBytes);
  const memory = allocateMemory(length);
  try {
    const { address } = memory;
    const failure = await calls.run(volume.active, OPERATION.read, { at: 0, length, address });
    if (failure !== 0) {
      throw new PsmaError(
        "io/volume",
        `Cannot attach ${volume.name}: reading its beginning failed: ${errnoText(failure)}`,
      );
    }
    return {
      size_bytes: volume.sizeBytes,
      max_size_bytes: maxSizeBytes,
      sector_bytes: sectorBytesIn(memory.bytes),
      read_only: volume.readOnly,
      max_io_bytes: requests.maxIo,
    };
  } finally {
    unmapMemory(memory);
  }
}
