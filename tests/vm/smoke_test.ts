/** The smallest guest program: what the other tests of this folder rely on. */
import { requires } from "../support/requires.ts";
import { bootGuest } from "../support/vm.ts";

Deno.test({
  name: "a test machine boots, has its modules, and runs psma",
  ...requires({ vm: true }),
  fn: (t) => bootGuest(t, { program: "smoke", modules: ["ublk_drv", "nbd"] }),
});
