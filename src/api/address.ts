/** Where the API is: `127.0.0.1:9310`, `http://127.0.0.1:9310`, `unix:/run/psma.sock`. */
import { PsmaError } from "../core/mod.ts";

export type Address =
  | { readonly host: string; readonly port: number }
  | { readonly path: string };

const LOOPBACK = /^(?:localhost|127(?:\.\d{1,3}){3}|\[::1\])$/;

/** @throws {PsmaError} config/listen for what is no address, or one beyond this machine. */
export function parseAddress(text: string): Address {
  const path = /^(?:unix:)?(\/.+)$/.exec(text)?.[1];
  if (path !== undefined) return { path };
  const match = /^(?:http:\/\/)?(\[[0-9a-fA-F:]+\]|[^:/]+):(\d{1,5})\/?$/.exec(text);
  const host = match?.[1];
  const port = Number(match?.[2]);
  if (host === undefined || port > 65535) {
    throw new PsmaError("config/listen", `Cannot use the address "${text}": it is not one`, {
      hint: "Write it like 127.0.0.1:9310 or unix:/run/psma.sock.",
    });
  }
  if (!LOOPBACK.test(host)) {
    throw new PsmaError(
      "config/listen",
      `Cannot use the address ${text}: ${host} is not a loopback address`,
      { hint: "The API has no TLS: use 127.0.0.1 or a Unix socket, and ssh to reach it." },
    );
  }
  return { host: host.replace(/^\[|\]$/g, ""), port };
}

/** As {@linkcode parseAddress} reads it. */
export function formatAddress(address: Address): string {
  if ("path" in address) return `unix:${address.path}`;
  const host = address.host.includes(":") ? `[${address.host}]` : address.host;
  return `http://${host}:${address.port}`;
}
