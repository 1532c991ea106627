/** One NBD server in a process of its own, for a test that plays its clients; afterwards nothing may be left in it. */
import { NbdProcess } from "./nbd_process.ts";
import { waitUntil } from "./process.ts";
import { requires } from "./requires.ts";
import { tempDir } from "./temp.ts";

export const SERVED_BYTES = 8 << 20;
/** Requests that the server can have at once, and bytes of the largest that fits. */
export const SERVED_SLOTS = 16;
export const SERVED_MAX_IO = 256 * 1024;

export interface Served {
  readonly process: NbdProcess;
  /** The server's Unix socket; its export is called `data`. */
  readonly socket: string;
}

export interface ServedOptions {
  readonly readOnly?: boolean;
  readonly handshake_s?: number;
  readonly idle_s?: number;
  readonly connections?: number;
  readonly sizeBytes?: number;
  /** The exports, each a file of its own; `data` when not given. */
  readonly names?: readonly string[];
}

/** Runs `fn` beside a server; afterwards no slot, session or descriptor may be left. */
export async function withServer(
  fn: (served: Served) => Promise<void>,
  options: ServedOptions = {},
): Promise<void> {
  const { readOnly = false, sizeBytes = SERVED_BYTES, names = ["data"], ...limits } = options;
  using temp = tempDir();
  await using process = await NbdProcess.start({ slots: SERVED_SLOTS, maxIo: SERVED_MAX_IO });
  const socket = temp.file("nbd.sock");
  await process.call("serve", { server: "s", listen: { path: socket }, fenced: false, ...limits });
  for (const name of names) {
    const path = temp.file(`${name}.img`);
    await Deno.writeFile(path, new Uint8Array());
    await Deno.truncate(path, sizeBytes);
    await process.call("exportFile", { server: "s", name, path, description: "", readOnly });
  }
  const before = await process.call("stats", null);
  await fn({ process, socket });
  await waitUntil(async () => {
    const now = await process.call("stats", null);
    return now.slots_free === SERVED_SLOTS && now.connected === 0 && now.operations_in_use === 0 &&
      now.descriptors === before.descriptors;
  }, { what: "slots, sessions and descriptors to come back", within_ms: 10_000 });
}

/** A test beside a server, where there is io_uring. */
export function servedTest(
  name: string,
  fn: (served: Served) => Promise<void>,
  options: ServedOptions = {},
): void {
  Deno.test({ name, ...requires({ io_uring: true }), fn: () => withServer(fn, options) });
}
