/** What an NBD backend is opened with, and what it tells of its connections. */
import type { Rng } from "../../core/mod.ts";
import type { Reactor } from "../../sys/mod.ts";
import type { Operations } from "../operations.ts";

/** Something for the event log. */
export interface NbdBackendEvent {
  readonly type: string;
  readonly severity: "info" | "warning" | "error";
  readonly message: string;
}

/**
 * Finds the addresses of a host by its name; asked anew for every connection.
 * @returns IP addresses, the best first.
 */
export type ResolveHost = (host: string) => Promise<readonly string[]>;

export interface NbdBackendOptions {
  /** `nbd://host:port/name` or `nbd+unix:///name?socket=/path`. */
  readonly uri: string;
  /** What messages call the server, where `uri` only leads to it through a relay. */
  readonly place?: string;
  readonly reactor: Reactor;
  readonly operations: Operations;
  readonly onEvent?: (event: NbdBackendEvent) => void;
  /** With it, an export that cannot be reached now is waited for and believed to be this large. */
  readonly expectedSizeBytes?: number;
  /** Connections to spread requests over where the server allows several; default 1, at most 16. */
  readonly connections?: number;
  /** How long a request may go without an answer before its connection counts as lost; default 30 s, 0: for ever. */
  readonly answerLimitMs?: number;
  /**
   * The server lets nothing of a connection land that a later one has superseded. Without it, a connection on
   * which held writes have no answer is waited for beyond the limit. Default: the export's name has an epoch.
   */
  readonly fenced?: boolean;
  /** How long connecting and negotiating may take together; default 10 s. */
  readonly dialLimitMs?: number;
  /** Without it hosts are IP addresses or `localhost`. */
  readonly resolveHost?: ResolveHost;
  /** For the pauses between attempts to connect. */
  readonly rng?: Rng;
}
