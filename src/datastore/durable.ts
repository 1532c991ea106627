/**
 * Files that survive a power cut. A rename is durable only when its directory is flushed after it, and it
 * names whole content only when the content was flushed before it.
 */

/** Flushes a directory: the names in it, not what they name. */
export async function syncDirectory(path: string): Promise<void> {
  const directory = await Deno.open(path, { read: true });
  try {
    await directory.sync();
  } finally {
    directory.close();
  }
}

/** Writes a new file and flushes it; its name is durable once its directory is. */
export async function writeFlushed(path: string, text: string, mode = 0o600): Promise<void> {
  const file = await Deno.open(path, { write: true, create: true, truncate: true, mode });
  try {
    const bytes = new TextEncoder().encode(text);
    for (let written = 0; written < bytes.length;) {
      written += await file.write(bytes.subarray(written));
    }
    await file.sync();
  } finally {
    file.close();
  }
}

/** Replaces a file's content: after a crash it is the old or the new one, whole. */
export async function replaceDurably(path: string, text: string): Promise<void> {
  const next = `${path}.new`;
  await writeFlushed(next, text);
  await Deno.rename(next, path);
  await syncDirectory(path.slice(0, path.lastIndexOf("/")));
}

/** Makes a thin file at least `size_bytes` long, and flushes that. */
export async function extendFile(path: string, size_bytes: number): Promise<void> {
  const file = await Deno.open(path, { write: true, create: true, mode: 0o600 });
  try {
    if ((await file.stat()).size < size_bytes) await file.truncate(size_bytes);
    await file.sync();
  } finally {
    file.close();
  }
}
