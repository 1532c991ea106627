/** Where a volume's bytes live: one interface, one table of operations. */
export * from "./backend.ts";
export * from "./file.ts";
export * from "./nbd.ts";
export * from "./nbd_uri.ts";
export * from "./operations.ts";
