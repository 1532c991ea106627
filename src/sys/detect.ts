/** What a device or file holds, by the magic numbers of superblocks. */

/** `blank`: zeros wherever a superblock or partition table could begin; `other`: something that is not ours to touch. */
export type Contents = "xfs" | "ext4" | "btrfs" | "blank" | "other";

const BEGINNING_BYTES = 1 << 20, END_BYTES = 128 << 10;
const EXT_SUPERBLOCK_AT = 1024, BTRFS_SUPERBLOCK_AT = 65_536;
/** The superblocks that PSMA knows begin within these first bytes. */
export const SUPERBLOCKS_WITHIN_BYTES = BTRFS_SUPERBLOCK_AT + 4096;

/**
 * What a device or file holds. ext2 and ext3 count as ext4: its driver mounts and grows them.
 * @param options.sizeBytes where its contents end, when that is before the device does.
 * @throws {Deno.errors.NotFound} and the like when it cannot be read.
 */
export async function detectFilesystem(
  path: string,
  { sizeBytes }: { sizeBytes?: number } = {},
): Promise<Contents> {
  using file = await Deno.open(path);
  const beginning = await readAt(file, 0, BEGINNING_BYTES);
  const found = decodeMagic(beginning);
  if (found !== undefined) return found;
  if (!isZero(beginning)) return "other";
  // RAID and LVM variants write their labels at the end.
  const size = sizeBytes ?? await file.seek(0, Deno.SeekMode.End);
  const at = Math.max(0, size - END_BYTES);
  return isZero(await readAt(file, at - at % 4096, END_BYTES + 4096)) ? "blank" : "other";
}

/**
 * The sector size that a file's contents were made for: a file system refuses a device with larger ones.
 * @returns bytes: XFS's own; 4096 for ext4, btrfs (whose blocks may not be smaller here) and blank files; 512 else.
 */
export async function sectorBytesOf(path: string): Promise<number> {
  using file = await Deno.open(path);
  return sectorBytesIn(await readAt(file, 0, SUPERBLOCKS_WITHIN_BYTES));
}

/** As {@linkcode sectorBytesOf}, of what has been read. @param beginning the first SUPERBLOCKS_WITHIN_BYTES bytes. */
export function sectorBytesIn(beginning: Uint8Array): number {
  const view = new DataView(beginning.buffer, beginning.byteOffset, beginning.length);
  switch (decodeMagic(beginning)) {
    case "xfs":
      return view.getUint16(102);
    case "ext4":
      return Math.min(4096, 1024 << view.getUint32(EXT_SUPERBLOCK_AT + 24, true));
    case "btrfs":
      return 4096;
    default:
      return isZero(beginning) ? 4096 : 512;
  }
}

/** @param beginning the first bytes of a device. @returns undefined where no known superblock is. */
function decodeMagic(beginning: Uint8Array): "xfs" | "ext4" | "btrfs" | undefined {
  const text = (at: number, length: number) =>
    String.fromCharCode(...beginning.subarray(at, at + length));
  if (text(0, 4) === "XFSB") return "xfs";
  if (text(BTRFS_SUPERBLOCK_AT + 64, 8) === "_BHRfS_M") return "btrfs";
  if (text(EXT_SUPERBLOCK_AT + 56, 2) === "\x53\xef") return "ext4";
  return undefined;
}

/** Reads up to `length` bytes; less at the end. */
async function readAt(file: Deno.FsFile, at: number, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  await file.seek(at, Deno.SeekMode.Start);
  let filled = 0;
  while (filled < length) {
    const count = await file.read(bytes.subarray(filled));
    if (count === null) break;
    filled += count;
  }
  return bytes.subarray(0, filled);
}

function isZero(bytes: Uint8Array): boolean {
  return bytes.every((byte) => byte === 0);
}
