/** Kernels on which a killed agent's requests are replayed (6.1), and on which the kernel sends them again (6.12). */
import { requires } from "../support/requires.ts";
import { bootGuest } from "../support/vm.ts";

for (const kernel of ["6.1", "6.12"] as const) {
  Deno.test({
    name: `Linux ${kernel}: a mounted file system outlives kill -9 of the agent and grows`,
    ...requires({ vm: true }),
    fn: (t) =>
      bootGuest(t, {
        program: "fuse_takeover",
        kernel,
        modules: ["fuse", "loop"],
        timeout_ms: 540_000,
      }),
  });
}
