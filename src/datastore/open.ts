/** From a store's entry in the configuration to the store. */
import { type Clock, type Log, type Rng, systemClock, systemRng } from "../core/mod.ts";
import { EmbeddedStore } from "./embedded.ts";
import { PsmaStore } from "./psma.ts";
import type { DataStore } from "./store.ts";

export type StoreConfig =
  | { readonly type: "embedded"; readonly path: string }
  | {
    readonly type: "psma";
    readonly url: string;
    readonly token_file?: string | undefined;
    /** Of authorities that sign the store's certificates, for HTTP and for NBD. */
    readonly ca_file?: string | undefined;
    /** What we show to the store's NBD server. */
    readonly cert_file?: string | undefined;
    readonly key_file?: string | undefined;
    /** What the NBD server's certificate is for, when it is not the host of its URIs. */
    readonly server_name?: string | undefined;
  };

export interface OpenStoreOptions {
  readonly log: Log;
  readonly clock?: Clock;
  readonly rng?: Rng;
}

/** Nothing is read, made or reached yet. @throws {PsmaError} config/store */
export function openStore(name: string, config: StoreConfig, options: OpenStoreOptions): DataStore {
  const { clock = systemClock, rng = systemRng } = options;
  const log = options.log.with({ store: name });
  if (config.type === "embedded") return new EmbeddedStore(name, config.path, { log, clock, rng });
  const { url, token_file, ca_file, cert_file, key_file, server_name } = config;
  const tls = {
    ...(ca_file === undefined ? {} : { ca_file }),
    ...(cert_file === undefined ? {} : { cert_file }),
    ...(key_file === undefined ? {} : { key_file }),
    ...(server_name === undefined ? {} : { server_name }),
  };
  return new PsmaStore(name, url, { log, clock, rng, token_file, ca_file }, tls);
}
