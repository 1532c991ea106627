/** Who may reach an NBD server over TCP: nobody beyond this machine without TLS and a certificate of the client. */
import { isLoopback, type ListenAddress } from "../../core/mod.ts";

/** The TLS of an NBD server, as its user configures it. */
export interface NbdTls {
  readonly cert_file: string;
  readonly key_file: string;
  /** Clients must show a certificate that this authority has signed. */
  readonly client_ca_file?: string;
}

export interface NbdReach {
  readonly listen: ListenAddress;
  readonly tls?: NbdTls | undefined;
  /** What clients call this machine in URIs, where it is not what is listened on. */
  readonly public_host?: string | undefined;
}

/** @returns why it may not be listened on like that, as the end of a sentence; undefined when it may. */
export function reachFault({ listen, tls, public_host }: NbdReach): string | undefined {
  if ("path" in listen) {
    return tls === undefined ? undefined : "a Unix socket has no use for TLS";
  }
  if (isLoopback(listen.host)) return undefined;
  if (tls === undefined) return "other machines could reach it without TLS";
  if (tls.client_ca_file === undefined) {
    return "whoever reaches it could read and write volumes: name an authority for clients' certificates";
  }
  if (["0.0.0.0", "::"].includes(listen.host) && public_host === undefined) {
    return "clients need a name or address of this machine: name its public host";
  }
  return undefined;
}
