/** Data stores: clients of the places where volumes' bytes live, and the network store itself. */
export { openStore, type StoreConfig } from "./open.ts";
export * from "./store.ts";
export { startStore, type StoreOptions } from "./server/start.ts";
