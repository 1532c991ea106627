/** What crosses between the main thread and the TLS relay's thread: plain records, numbered by `seq`. */
import type { TlsFiles } from "../../codec/mod.ts";
import type { DataPlaneEvent, Outcome } from "../messages.ts";

/** Where a plain stream socket is. */
export type PlainAddress = { readonly path: string } | {
  readonly host: string;
  readonly port: number;
};

/** A TCP port where NBD clients must begin TLS; what they say then goes to a Unix socket's NBD server. */
export interface ServeTls {
  readonly listen: { readonly host: string; readonly port: number };
  /** Path of the Unix socket of the NBD server behind it. */
  readonly forward_to: string;
  readonly cert_file: string;
  readonly key_file: string;
  /** Clients must show a certificate that this authority has signed. */
  readonly client_ca_file?: string;
  /** How long a client may take to begin TLS; default 10 s. */
  readonly handshake_ms?: number;
}

/** An NBD server to be reached by TLS, for whoever connects to the Unix socket at `path`. */
export interface DialTls {
  readonly path: string;
  readonly address: PlainAddress;
  /** What the server's certificate must be for: a host name or an IP address. */
  readonly server_name: string;
  readonly files: TlsFiles;
  /** Files that cannot be used now are waited for: until then connections fail. */
  readonly patient?: boolean;
}

/** Commands: main thread → relay. Each has one answer with the same `seq`. */
export interface RelayCommands {
  /** @returns the port that was taken when 0 was asked for. */
  serve: { argument: ServeTls; answer: { port: number } };
  dial: { argument: DialTls; answer: null };
  /** @returns why the latest connection through the socket at `path` failed; null when it did not. */
  fault: { argument: { path: string }; answer: string | null };
}

export type RelayCommandName = keyof RelayCommands;

export interface ToRelay {
  readonly seq: number;
  readonly name: RelayCommandName;
  readonly argument: unknown;
}

export type FromRelay =
  | { readonly kind: "outcome"; readonly seq: number; readonly outcome: Outcome<unknown> }
  | { readonly kind: "event"; readonly event: DataPlaneEvent };

/** Tells what happened; what repeats is told less often. */
export type OnRelayEvent = (
  type: string,
  severity: "warning" | "error",
  message: string,
) => void;
