/** A loop device that is detached when its block ends, however that ends. */
import { type AttachedLoop, type AttachLoop, attachLoop, detachLoop } from "../../src/sys/mod.ts";

/** Attaches a file. */
export async function attachedLoop(options: AttachLoop): Promise<AttachedLoop & AsyncDisposable> {
  const loop = await attachLoop(options);
  return { ...loop, [Symbol.asyncDispose]: async () => void await detachLoop(loop.device) };
}

/** Makes a file of zeros without blocks. @returns its path. */
export function sparseFile(path: string, sizeBytes: number): string {
  Deno.writeFileSync(path, new Uint8Array());
  Deno.truncateSync(path, sizeBytes);
  return path;
}
