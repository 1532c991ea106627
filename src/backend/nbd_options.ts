/** What an NBD backend is opened with, and what it tells of its connection. */
import type { Reactor } from "../sys/mod.ts";
import type { Operations } from "./operations.ts";

/** Something for the event log. */
export interface NbdBackendEvent {
  readonly type: string;
  readonly severity: "info" | "warning" | "error";
  readonly message: string;
}

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
}
