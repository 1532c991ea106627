/** ublk devices, which need a driver that the machine at hand may lack: in test machines. */
import { requires } from "../support/requires.ts";
import { bootGuest } from "../support/vm.ts";

Deno.test({
  name: "ublk devices serve, survive their server, grow, and leave nothing behind",
  ...requires({ vm: true }),
  fn: (t) => bootGuest(t, { program: "ublk", modules: ["ublk_drv"], timeout_ms: 300_000 }),
});

Deno.test({
  name: "the agent prefers ublk, and a new one takes over what a killed one served",
  ...requires({ vm: true }),
  fn: (t) => bootGuest(t, { program: "ublk_agent", modules: ["ublk_drv"], timeout_ms: 480_000 }),
});
