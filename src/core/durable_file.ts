/**
 * Files that survive a power cut, for threads without a reactor. A rename is durable only when its directory
 * is flushed after it, and it names whole content only when the content was flushed before it.
 *
 * Those that end in Sync block the thread for the flush: for small files of a thread that must not go on
 * before. Faults are thrown as Deno throws them: the caller knows what the file is for.
 */
import { dirname } from "node:path";
import type { Rng } from "./rng.ts";

/** Only the owner may read what is made here. */
const PRIVATE = 0o600;

/** Replaces a file's content: after a crash it is the old or the new one, whole. */
export async function replaceFile(path: string, text: string): Promise<void> {
  const next = `${path}.new`;
  await writeFlushed(next, text);
  await Deno.rename(next, path);
  await syncDirectory(dirname(path));
}

/** As {@linkcode replaceFile}. */
export function replaceFileSync(path: string, text: string): void {
  const next = `${path}.new`;
  writeFlushedSync(next, text);
  Deno.renameSync(next, path);
  syncDirectorySync(dirname(path));
}

/**
 * Makes a file unless one has the name already: then that one stays. After a crash it is there whole or not
 * at all; of two that make it at once, one wins.
 */
export function createFileSync(path: string, text: string, rng: Rng): void {
  const next = `${path}.${rng.hex(8)}.new`;
  try {
    writeFlushedSync(next, text);
    Deno.linkSync(next, path);
  } catch (error) {
    if (!(error instanceof Deno.errors.AlreadyExists)) throw error;
  } finally {
    removeIfThere(next);
  }
  syncDirectorySync(dirname(path));
}

/** Writes a new file and flushes it; its name is durable once its directory is. */
export async function writeFlushed(path: string, text: string): Promise<void> {
  using file = await Deno.open(path, { write: true, create: true, truncate: true, mode: PRIVATE });
  const bytes = new TextEncoder().encode(text);
  for (let written = 0; written < bytes.length;) {
    written += await file.write(bytes.subarray(written));
  }
  await file.sync();
}

/** Makes a thin file at least `size_bytes` long, and flushes that. */
export async function extendFile(path: string, size_bytes: number): Promise<void> {
  using file = await Deno.open(path, { write: true, create: true, mode: PRIVATE });
  if ((await file.stat()).size < size_bytes) await file.truncate(size_bytes);
  await file.sync();
}

/** Writes all of a text where the file stands. */
export function writeAllSync(file: Deno.FsFile, text: string): void {
  const bytes = new TextEncoder().encode(text);
  for (let written = 0; written < bytes.length;) written += file.writeSync(bytes.subarray(written));
}

/** Flushes a directory: the names in it, not what they name. */
export async function syncDirectory(path: string): Promise<void> {
  using directory = await Deno.open(path);
  await directory.sync();
}

/** As {@linkcode syncDirectory}. */
export function syncDirectorySync(path: string): void {
  using directory = Deno.openSync(path);
  directory.syncSync();
}

function writeFlushedSync(path: string, text: string): void {
  using file = Deno.openSync(path, { write: true, create: true, truncate: true, mode: PRIVATE });
  writeAllSync(file, text);
  file.syncSync();
}

function removeIfThere(path: string): void {
  try {
    Deno.removeSync(path);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}
