/** Tells the service manager how we are: sd_notify(3)'s protocol, one datagram to the socket it named. */
import { sendDatagram } from "../sys/mod.ts";

const AF_UNIX = 1;
const FAMILY_BYTES = 2, PATH_BYTES_MAX = 108;

/**
 * Sends a state such as `READY=1`. Does nothing where no service manager asked for it, and does not fail
 * where it cannot be reached: it then finds out by itself.
 * @returns whether it was sent.
 */
export function notifyServiceManager(
  state: string,
  socket_path: string | undefined = Deno.env.get("NOTIFY_SOCKET"),
): boolean {
  if (socket_path === undefined || !/^[/@]./.test(socket_path)) return false;
  // `@` stands for the zero byte that begins an abstract name; such a name ends with the address.
  const abstract = socket_path.startsWith("@");
  const path = new TextEncoder().encode(abstract ? "\0" + socket_path.slice(1) : socket_path);
  if (path.length >= PATH_BYTES_MAX) return false;
  const address = new Uint8Array(FAMILY_BYTES + path.length + (abstract ? 0 : 1));
  new DataView(address.buffer).setUint16(0, AF_UNIX, true);
  address.set(path, FAMILY_BYTES);
  return sendDatagram(address, state);
}
