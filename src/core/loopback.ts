/** Where our servers listen: without TLS, nothing beyond this machine. */
import { PsmaError } from "./errors.ts";

export type ListenAddress =
  | { readonly path: string }
  | { readonly host: string; readonly port: number };

/**
 * Reads `127.0.0.1:9310`, `[::1]:9310`, `localhost:0`, `http://127.0.0.1:9310`, `unix:/run/psma.sock` or
 * `/run/psma.sock`.
 * @throws {PsmaError} config/listen, also for an address that others on the network could reach.
 */
export function parseListen(text: string): ListenAddress {
  const address = parseAddress(text);
  if ("path" in address || isLoopback(address.host)) return address;
  throw refused(
    text,
    "other machines could reach it without TLS",
    "Use 127.0.0.1 or a Unix socket, and reach it from afar through a TLS or SSH tunnel.",
  );
}

/** Reads what {@linkcode parseListen} does, also where others could reach it. @throws {PsmaError} config/listen */
export function parseAddress(text: string): ListenAddress {
  const path = /^(?:unix:)?(\/.+)$/.exec(text)?.[1];
  if (path !== undefined) return { path };
  if (text.startsWith("unix:")) {
    throw refused(text, "its path is not absolute", "Write it like unix:/run/psma.sock.");
  }
  const match = /^(?:http:\/\/)?(\[[0-9a-f:]+\]|[^:[\]/]+):(\d{1,5})\/?$/i.exec(text);
  const host = match?.[1]?.replace(/^\[|\]$/g, "");
  const port = Number(match?.[2]);
  if (host === undefined || port > 65_535) {
    throw refused(text, "it is not one", "Write it like 127.0.0.1:9310 or unix:/run/psma.sock.");
  }
  return { host, port };
}

/** What a client is given, and {@linkcode parseListen} reads: `http://host:port` or `unix:/path`. */
export function formatListen(address: ListenAddress): string {
  if ("path" in address) return `unix:${address.path}`;
  const host = address.host.includes(":") ? `[${address.host}]` : address.host;
  return `http://${host}:${address.port}`;
}

/** 127.0.0.0/8, ::1 and localhost. */
export function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || /^127(\.\d{1,3}){3}$/.test(host);
}

function refused(text: string, why: string, hint: string): PsmaError {
  return new PsmaError("config/listen", `Cannot use the address "${text}": ${why}`, { hint });
}
