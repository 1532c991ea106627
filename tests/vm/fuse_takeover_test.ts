/** A kernel on which a killed agent's requests are replayed, because it cannot send them again: Debian 12's own. */
import { requires } from "../support/requires.ts";
import { bootGuest } from "../support/vm.ts";

Deno.test({
  name: "Linux 6.1: a mounted file system outlives kill -9 of the agent and grows",
  ...requires({ vm: true }),
  fn: (t) =>
    bootGuest(t, {
      program: "fuse_takeover",
      kernel: "6.1",
      modules: ["fuse", "loop"],
      timeout_ms: 540_000,
    }),
});
