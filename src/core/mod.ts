/** Units, names, errors, asserts, clock, chance, turns, memory, log, bounded queue, durable and token files: what every room may use. */
export * from "./assert.ts";
export * from "./clock.ts";
export * from "./durable_file.ts";
export * from "./errno.ts";
export * from "./errors.ts";
export * from "./http_server.ts";
export * from "./ids.ts";
export * from "./log.ts";
export * from "./loopback.ts";
export * from "./memory.ts";
export * from "./queue.ts";
export * from "./rng.ts";
export * from "./self.ts";
export * from "./supervise.ts";
export * from "./token_file.ts";
export * from "./turns.ts";
export * from "./units.ts";
