/**
 * What is attached, on record in the volume's own directory: so that the next process can go on serving a
 * device that outlives this one, or take it away. It holds within one boot: devices and mounts do not last longer.
 *
 * Faults: a record that is damaged or of another boot counts as none; what it named is gone, or is found by
 * the frontend's own search for leftovers.
 */
import { replaceFileSync } from "../../core/mod.ts";
import { bootId } from "../boot.ts";
import type { ExportInfo, FrontendName } from "../messages.ts";

/** What only the frontend that wrote it understands. */
export type AttachmentDetails = Readonly<Record<string, string | number | boolean | null>>;

export interface AttachmentRecord {
  readonly frontend: FrontendName;
  readonly exports: readonly ExportInfo[];
  readonly details: AttachmentDetails;
}

interface RecordFile extends AttachmentRecord {
  readonly boot_id: string;
}

/** Puts it on record, durably. @param directory the volume's own. */
export function saveAttachmentRecord(directory: string, record: AttachmentRecord): void {
  const file: RecordFile = { ...record, boot_id: bootId() };
  replaceFileSync(recordPath(directory), JSON.stringify(file));
}

/** @returns undefined where nothing of this boot is on record. */
export function loadAttachmentRecord(directory: string): AttachmentRecord | undefined {
  let text: string;
  try {
    text = Deno.readTextFileSync(recordPath(directory));
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
  const file = parse(text);
  if (file === undefined || file.boot_id !== bootId()) return undefined;
  const { frontend, exports, details } = file;
  return { frontend, exports, details };
}

/** What is not there is no error. */
export function removeAttachmentRecord(directory: string): void {
  try {
    Deno.removeSync(recordPath(directory));
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

function parse(text: string): RecordFile | undefined {
  try {
    const file = JSON.parse(text) as Partial<RecordFile> | null;
    const whole = typeof file?.boot_id === "string" && typeof file.frontend === "string" &&
      Array.isArray(file.exports) && typeof file.details === "object" && file.details !== null;
    return whole ? file as RecordFile : undefined;
  } catch {
    return undefined;
  }
}

function recordPath(directory: string): string {
  return `${directory}/attachment.json`;
}
