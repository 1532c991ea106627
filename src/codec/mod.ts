/** Bytes to records and back, pure: one protocol a file. */
export * from "./counters.ts";
export * from "./diskstats.ts";
export * from "./manifest.ts";
export * from "./nbd.ts";
export * from "./nbd_chunks.ts";
export * from "./nbd_contexts.ts";
export * from "./nbd_negotiation.ts";
export * from "./nbd_netlink.ts";
export * from "./netlink.ts";
export * from "./uring.ts";
export * from "./change_map.ts";
export * from "./unverified_map.ts";
export * from "./verify_record.ts";
export * from "./fuse.ts";
export * from "./fsmap.ts";
export * from "./fiemap.ts";
export * from "./ublk.ts";
