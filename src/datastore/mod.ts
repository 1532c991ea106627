/** Data stores: clients of the places where volumes' bytes live, and the network store itself. */
export { openStore, type OpenStoreOptions, type StoreConfig } from "./open.ts";
export * from "./store.ts";
export { type RunningStore, startStore, type StoreOptions } from "./server/start.ts";
