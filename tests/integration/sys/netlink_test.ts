/** Generic netlink with the running kernel: its family of families is always there. */
import { equal, throws } from "node:assert/strict";
import { GENERIC_CONTROL, textAttribute, textIn } from "../../../src/codec/mod.ts";
import { GenericNetlink } from "../../../src/sys/mod.ts";

Deno.test("GenericNetlink asks a family and hears its answer", () => {
  using netlink = new GenericNetlink("nlctrl", 2);
  const ask = (name: string) =>
    netlink.command("find a family", GENERIC_CONTROL.getFamily, [
      textAttribute(GENERIC_CONTROL.familyName, name),
    ]);
  equal(textIn(ask("nlctrl")[0]?.attributes ?? [], GENERIC_CONTROL.familyName), "nlctrl");
  throws(() => ask("psma-none"), { code: "sys/errno-2" });
  equal(ask("nlctrl").length, 1, "an error leaves nothing behind");
});

Deno.test("GenericNetlink names the module of a family that is not there", () => {
  throws(() => new GenericNetlink("psma-none", 1), {
    code: "state/no-driver",
    hint: "Load its module: modprobe psma-none",
  });
});
