/** Bytes to records and back, pure: one protocol a file. */
export * from "./counters.ts";
export * from "./uring.ts";
