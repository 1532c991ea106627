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

export interface NbdDoor {
  /** `unix:/path`, `host:port` or `nbds://host:port`. */
  readonly address: string;
  /** Lets clients in behind TLS, once the store's directory is there. @throws {PsmaError} state/private-directory, sys/... */
  open(): Promise<void>;
}

/**
 * Takes the address; of the store's directory nothing is touched yet.
 * @param directory of the store, for the socket behind TLS.
 * @throws {PsmaError} config/tls-file, config/listen, state/address-in-use, sys/...
 */
export async function listenNbd(
  plane: DataPlane,
  { listen, tls, public_host }: NbdReach,
  directory: string,
  limits: NbdLimits,
): Promise<NbdDoor> {
  if (tls === undefined || "path" in listen) {
    const { address } = await plane.command("serveNbd", { listen, fenced: true, ...limits });
    return { address, open: () => Promise.resolve() };
  }
  const inner = `${directory}/${INNER}`;
  const forward_to = `${inner}/nbd`;
  const address = await plane.serveTls({ listen, forward_to, ...tls }, public_host);
  return {
    address,
    async open() {
      makePrivateDirectory(inner);
      await plane.command("serveNbd", { listen: { path: forward_to }, fenced: true, ...limits });
    },
  };
}
