/** The peers' target: nbdkit's file server on a file of its own, thin at first; it does not check anything. */
import { start, waitUntil } from "../../support/process.ts";

export interface TargetServer extends AsyncDisposable {
  readonly socket: string;
}

export async function startTarget(directory: string, size_bytes: number): Promise<TargetServer> {
  const socket = `${directory}/nbdkit.sock`, path = `${directory}/target`;
  Deno.createSync(path).close();
  Deno.truncateSync(path, size_bytes);
  const process = start("nbdkit", ["-f", "-U", socket, "file", path]);
  try {
    await waitUntil(() => accepts(socket), { what: () => `nbdkit: ${process.output()}` });
  } catch (error) {
    await process[Symbol.asyncDispose]();
    throw error;
  }
  return { socket, [Symbol.asyncDispose]: () => process[Symbol.asyncDispose]() };
}

async function accepts(path: string): Promise<boolean> {
  try {
    (await Deno.connect({ transport: "unix", path })).close();
    return true;
  } catch {
    return false;
  }
}
