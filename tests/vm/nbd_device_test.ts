/** `frontend: nbd` with `device: true`: the kernel's own NBD client on the agent's server. */
import { requires } from "../support/requires.ts";
import { bootGuest } from "../support/vm.ts";

Deno.test({
  name: "a kernel NBD device keeps its file system through a standstill, kill -9 and growth",
  ...requires({ vm: true }),
  fn: (t) => bootGuest(t, { program: "nbd_device", modules: ["nbd"], timeout_ms: 840_000 }),
});
