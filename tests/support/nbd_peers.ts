/** Other people's NBD servers, on a Unix socket. */
import { RawNbd } from "./nbd_raw.ts";
import { start, type Started, waitUntil } from "./process.ts";

/** Starts nbdkit and waits until it listens. */
export function nbdkit(socket: string, args: readonly string[]): Promise<Started> {
  return listening(socket, "nbdkit", ["--foreground", "--unix", socket, ...args]);
}

/** Starts qemu-nbd and waits until it listens. */
export function qemuNbd(socket: string, args: readonly string[]): Promise<Started> {
  return listening(socket, "qemu-nbd", ["--persistent", "--shared=16", "-k", socket, ...args]);
}

async function listening(
  socket: string,
  command: string,
  args: readonly string[],
): Promise<Started> {
  await Deno.remove(socket).catch(() => {});
  const server = start(command, args);
  let ended = false;
  server.status.then(() => ended = true);
  await waitUntil(async () => {
    if (ended) throw new Error(`${command} ended: ${server.output()}`);
    try {
      (await RawNbd.connect(socket))[Symbol.dispose]();
      return true;
    } catch {
      return false;
    }
  }, { what: () => `${command} to listen: ${server.output()}` });
  return server;
}

/** The URI of an export on a Unix socket. */
export function uriOf(socket: string, name = ""): string {
  return `nbd+unix:///${name}?socket=${socket}`;
}
