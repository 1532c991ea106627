/** How applications reach a volume. */
export * from "./fuse_held.ts";
export { createHeldArena, type HeldArena } from "./fuse_ledger.ts";
export type { ServedVolume } from "./nbd_exports.ts";
export * from "./nbd_server.ts";
export * from "./ublk.ts";
