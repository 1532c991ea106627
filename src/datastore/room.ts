/** Whether there is room: refusals with the numbers that a person needs. */
import { formatSize, PsmaError } from "../core/mod.ts";
import type { VolumeRecord } from "./volume_record.ts";

/**
 * A mirror must at least take what its source holds today.
 * @param free_bytes of the disk. @throws {PsmaError} store/full
 */
export function checkRoomFor(wanted: VolumeRecord, free_bytes: number): void {
  const used_bytes = wanted.mirror?.source.used_bytes ?? 0;
  if (used_bytes <= free_bytes) return;
  const free = formatSize(free_bytes), used = formatSize(used_bytes);
  throw new PsmaError(
    "store/full",
    `Cannot mirror ${wanted.mirror?.source.volume}: the store has ${free} free, ${used} is in use`,
    { hint: "Give the store more room, or mirror to another store." },
  );
}

/**
 * What is promised may not pass the store's limit.
 * @param promised_bytes to all others already. @throws {PsmaError} store/full
 */
export function checkPromise(
  id: string,
  asked_bytes: number,
  promised_bytes: number,
  capacity_bytes: number | undefined,
): void {
  if (capacity_bytes === undefined || promised_bytes + asked_bytes <= capacity_bytes) return;
  const left = formatSize(Math.max(0, capacity_bytes - promised_bytes));
  throw new PsmaError(
    "store/full",
    `Cannot promise ${formatSize(asked_bytes)} to ${id}: ${left} of ${
      formatSize(capacity_bytes)
    } is left`,
    { hint: "Delete volumes that nobody needs, or raise the store's capacity." },
  );
}
