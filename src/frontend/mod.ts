/** How applications reach a volume. */
export * from "./fuse.ts";
export type { ServedVolume } from "./nbd_exports.ts";
export * from "./nbd_server.ts";
