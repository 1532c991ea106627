/** NBD URIs: `nbd://host:port/name` and `nbd+unix:///name?socket=/path` (doc/uri.md of the NBD project). */
import { PsmaError } from "../../core/mod.ts";
import { addressText, type SocketAddress } from "../../sys/mod.ts";

const DEFAULT_PORT = 10_809;

/** Where an export is served, and its name there. */
export interface NbdTarget {
  readonly address: SocketAddress;
  /** Its epoch, where it has one, may rise between connections. */
  exportName: string;
  /** What messages call the server instead of its address. */
  readonly place?: string;
}

/** @throws {PsmaError} usage/nbd-uri */
export function parseNbdUri(uri: string): NbdTarget {
  const refuse = (reason: string) =>
    new PsmaError("usage/nbd-uri", `Cannot use ${uri}: ${reason}`, {
      hint: "Write nbd://HOST:PORT/NAME or nbd+unix:///NAME?socket=/PATH.",
    });
  const match = /^(nbd(?:\+unix)?):\/\/([^/?#]*)(?:\/([^?#]*))?(?:\?([^#]*))?$/.exec(uri);
  if (!match) throw refuse("it is not an NBD URI");
  const [, scheme, authority = "", path = "", query = ""] = match;
  let exportName: string;
  try {
    exportName = decodeURIComponent(path);
  } catch {
    throw refuse("its name is not well escaped");
  }
  if (scheme === "nbd+unix") {
    const socket = new URLSearchParams(query).get("socket");
    if (authority !== "" || !socket) throw refuse("it names no socket");
    return { address: { path: socket }, exportName };
  }
  const host = /^(?:\[([^\]]+)\]|([^:]+))(?::(\d{1,5}))?$/.exec(authority);
  const name = host?.[1] ?? host?.[2];
  if (!host || !name) throw refuse("it names no host");
  return {
    address: { host: name, port: host[3] === undefined ? DEFAULT_PORT : Number(host[3]) },
    exportName,
  };
}

/** True for the name by which PSMA's fenced servers let a writer in: `volume@EPOCH`. */
export function hasEpoch({ exportName }: NbdTarget): boolean {
  return /@\d{1,15}$/.test(exportName);
}

/** Names a higher epoch from the next connection on. @returns false where it would not be higher, or has none. */
export function raiseEpoch(target: NbdTarget, epoch: number): boolean {
  const [, name, before] = /^(.*)@(\d{1,15})$/.exec(target.exportName) ?? [];
  if (name === undefined || Number(before) >= epoch) return false;
  target.exportName = `${name}@${epoch}`;
  return true;
}

/** `volume on 127.0.0.1:10809`, for messages. */
export function targetText(target: NbdTarget): string {
  return `${target.exportName || "the default export"} on ${
    target.place ?? addressText(target.address)
  }`;
}
