/** Where a volume's bytes live: one interface, one table of operations. */
export { AwaitedBackend } from "./awaited.ts";
export * from "./backend.ts";
export * from "./calls.ts";
export * from "./batch_clock.ts";
export * from "./device.ts";
export * from "./file.ts";
export * from "./meter.ts";
export * from "./nbd/backend.ts";
export * from "./nbd/uri.ts";
export * from "./operations.ts";
export * from "./wrappers/delay.ts";
export * from "./wrappers/error.ts";
export * from "./wrappers/limit.ts";
export * from "./wrappers/torn.ts";
