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
    readonly ca_file?: string | undefined;
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
  const { url, token_file, ca_file } = config;
  return new PsmaStore(name, url, { log, clock, rng, token_file, ca_file });
}
