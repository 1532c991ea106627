/** NBD over TLS by URI: `nbds://host:port/name` and `nbds+unix:///name?socket=/path` (doc/uri.md of the NBD project). */
import { PsmaError } from "../../core/mod.ts";
import type { PlainAddress } from "./relay_messages.ts";

const DEFAULT_PORT = 10_809;

export interface TlsTarget {
  readonly address: PlainAddress;
  /** What the certificate must be for unless somebody says otherwise. */
  readonly host: string;
  /** Escaped, as in the URI. */
  readonly exportPath: string;
}

/** Whether it takes TLS to go there. */
export function isTlsUri(uri: string): boolean {
  return /^nbds(\+unix)?:/.test(uri);
}

/** @throws {PsmaError} usage/nbd-uri */
export function parseTlsUri(uri: string): TlsTarget {
  const refuse = (why: string) =>
    new PsmaError("usage/nbd-uri", `Cannot use ${uri}: ${why}`, {
      hint: "Write nbds://HOST:PORT/NAME or nbds+unix:///NAME?socket=/PATH.",
    });
  const match = /^nbds(\+unix)?:\/\/([^/?#]*)(?:\/([^?#]*))?(?:\?([^#]*))?$/.exec(uri);
  if (!match) throw refuse("it is not a URI of NBD over TLS");
  const [, unix, authority = "", exportPath = "", query = ""] = match;
  if (unix !== undefined) {
    const path = new URLSearchParams(query).get("socket");
    if (authority !== "" || !path?.startsWith("/")) throw refuse("it names no socket");
    return { address: { path }, host: "localhost", exportPath };
  }
  const parts = /^(?:\[([0-9a-f:.]+)\]|([^:[\]@]+))(?::(\d{1,5}))?$/i.exec(authority);
  const host = parts?.[1] ?? parts?.[2];
  const port = Number(parts?.[3] ?? DEFAULT_PORT);
  if (host === undefined || port < 1 || port > 65_535) throw refuse("it names no host and port");
  return { address: { host, port }, host, exportPath };
}

/** `nbds://host:port`, to which a slash and an export's name are added. */
export function tlsUriBase(host: string, port: number): string {
  return `nbds://${host.includes(":") ? `[${host}]` : host}:${port}`;
}

/** The URI of an export on a Unix socket. @param exportPath escaped. */
export function unixUri(exportPath: string, socket: string): string {
  return `nbd+unix:///${exportPath}?socket=${encodeURIComponent(socket).replaceAll("%2F", "/")}`;
}
