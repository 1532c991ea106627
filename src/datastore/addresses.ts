/** Where a store server listens: nothing beyond this machine, for it has no TLS for HTTP nor NBD. */
import { PsmaError } from "../core/mod.ts";

export type ListenAddress =
  | { readonly path: string }
  | { readonly host: string; readonly port: number };

/**
 * Reads `127.0.0.1:9320`, `[::1]:9320`, `localhost:0` or `unix:/run/psma/store.sock`.
 * @throws {PsmaError} config/listen, also for an address that others on the network could reach.
 */
export function parseListen(text: string): ListenAddress {
  if (text.startsWith("unix:")) {
    const path = text.slice("unix:".length);
    if (path.startsWith("/")) return { path };
    throw refused(text, "its path is not absolute", "Write it like unix:/run/psma/store.sock.");
  }
  const match = /^(\[[0-9a-f:]+\]|[^:[\]]+):(\d{1,5})$/i.exec(text);
  const host = match?.[1]?.replace(/^\[|\]$/g, "") ?? "";
  const port = Number(match?.[2] ?? NaN);
  if (!match || port > 65_535) {
    throw refused(text, "it is not an address", "Write it like 127.0.0.1:9320.");
  }
  if (!isLoopback(host)) {
    throw refused(
      text,
      "other machines could reach it without TLS",
      "Listen on 127.0.0.1 or a Unix socket, and reach it from afar through a TLS or SSH tunnel.",
    );
  }
  return { host, port };
}

/** 127.0.0.0/8, ::1 and localhost. */
export function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || /^127(\.\d{1,3}){3}$/.test(host);
}

function refused(text: string, why: string, hint: string): PsmaError {
  return new PsmaError("config/listen", `Cannot listen on ${text}: ${why}`, { hint });
}
