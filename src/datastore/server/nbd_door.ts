/** Where a store's NBD clients come in: a Unix socket, a loopback port, or a port that speaks TLS. */
import { parseAddress, PsmaError } from "../../core/mod.ts";
import {
  type DataPlane,
  makePrivateDirectory,
  type NbdLimits,
  type NbdReach,
  type NbdTls,
  reachFault,
} from "../../dataplane/mod.ts";

/** The Unix socket behind a TLS port, in the store's first directory. */
const INNER = ".psma-tls";

/**
 * Checks where NBD may be listened on; nothing is touched yet.
 * @throws {PsmaError} config/listen, also for an address that others could reach without TLS and certificates.
 */
export function readNbdDoor(text: string, tls?: NbdTls, public_host?: string): NbdReach {
  const reach: NbdReach = { listen: parseAddress(text), tls, public_host };
  const fault = reachFault(reach);
  if (fault === undefined) return reach;
  throw new PsmaError("config/listen", `Cannot use the address "${text}" for NBD: ${fault}`, {
    hint: "Beyond 127.0.0.1 it takes --tls-cert, --tls-key and --tls-client-ca, and --nbd-host " +
      "where the address is no name of this machine.",
  });
}

/**
 * Listens. @param directory of the store, for the socket behind TLS.
 * @returns where: `unix:/path`, `host:port` or `nbds://host:port`.
 * @throws {PsmaError} config/tls-file, config/listen, state/address-in-use, state/private-directory, sys/...
 */
export async function openNbdDoor(
  plane: DataPlane,
  { listen, tls, public_host }: NbdReach,
  directory: string,
  limits: NbdLimits,
): Promise<string> {
  if (tls === undefined || "path" in listen) {
    return (await plane.command("serveNbd", { listen, fenced: true, ...limits })).address;
  }
  const forward_to = `${makePrivateDirectory(`${directory}/${INNER}`)}/nbd`;
  await plane.command("serveNbd", { listen: { path: forward_to }, fenced: true, ...limits });
  return await plane.serveTls({ listen, forward_to, ...tls }, public_host);
}
