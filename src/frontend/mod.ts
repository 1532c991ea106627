/** How applications reach a volume. */
export * from "./fuse/held.ts";
export { createHeldArena } from "./fuse/ledger.ts";
export type { ServedVolume } from "./nbd/exports.ts";
export * from "./nbd/server.ts";
export * from "./ublk/export.ts";
