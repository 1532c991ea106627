/** The `nbd` section: a TCP port where NBD clients reach volumes over TLS, beside the agent's own Unix socket. */
import { parseAddress, PsmaError } from "../core/mod.ts";
import { type NbdTls, reachFault } from "../dataplane/mod.ts";
import type { Section } from "./config_section.ts";

export interface NbdConfig {
  readonly listen: { readonly host: string; readonly port: number };
  readonly tls: NbdTls;
  /** What clients call this machine; null: the address that is listened on. */
  readonly host: string | null;
}

/** @returns null when there is no such section: then volumes are reached on this machine alone. */
export function readNbd(
  section: Section,
  absolute: (path: string) => string,
): NbdConfig | null {
  if (!section.present) return null;
  const text = section.text("listen");
  const host = section.has("host") ? section.text("host") : null;
  const files = section.section("tls");
  if (!files.present) {
    section.report("tls", "config/missing", "NBD on a port takes TLS", {
      hint: "Add tls: { cert_file: …, key_file: … }; without TLS clients use the Unix socket.",
    });
  }
  const tls: NbdTls = {
    cert_file: absolute(files.present ? files.text("cert_file") : ""),
    key_file: absolute(files.present ? files.text("key_file") : ""),
    ...(files.has("client_ca_file")
      ? { client_ca_file: absolute(files.text("client_ca_file")) }
      : {}),
  };
  files.end();
  section.end();
  const listen = section.has("listen") ? readAddress(section, text) : undefined;
  if (listen === undefined) return null;
  const fault = reachFault({ listen, tls, public_host: host ?? undefined });
  if (fault !== undefined) {
    section.refuse("listen", fault, "Add tls.client_ca_file, and host where it is 0.0.0.0.");
  }
  return { listen, tls, host };
}

function readAddress(section: Section, text: string): NbdConfig["listen"] | undefined {
  try {
    const address = parseAddress(text);
    if (!("path" in address)) return address;
    section.refuse("listen", "it is not a port", "The agent has a Unix socket for NBD already.");
  } catch (error) {
    if (!(error instanceof PsmaError)) throw error;
    section.refuse("listen", `"${text}" is not an address`, "Write it like 192.0.2.7:10809.");
  }
  return undefined;
}
