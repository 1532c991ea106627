/** The turns of the runtime's own event loop; sleeping takes no time. */
import type { Turns } from "../../src/core/mod.ts";

export const promiseTurns: Turns = {
  sleep: () => Promise.resolve(),
  deferred: () => Promise.withResolvers(),
  wake: () => {},
};
