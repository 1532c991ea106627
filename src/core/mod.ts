/** Units, names, errors, asserts, clock, chance, log and bounded queue: what every room may use. */
export * from "./assert.ts";
export * from "./clock.ts";
export * from "./errors.ts";
export * from "./ids.ts";
export * from "./log.ts";
export * from "./queue.ts";
export * from "./rng.ts";
export * from "./self.ts";
export * from "./supervise.ts";
export * from "./units.ts";
