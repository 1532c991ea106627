/** Bytes to records and back, pure: one protocol a file. */
export * from "./uring.ts";
