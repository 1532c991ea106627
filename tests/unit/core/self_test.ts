/** A program that starts itself again must get the same program. */
import { deepEqual, equal } from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { selfCommand } from "../../../src/core/self.ts";

const root = fileURLToPath(new URL("../../../", import.meta.url)).replace(/\/$/, "");

Deno.test("selfCommand() from sources runs this main.ts with this configuration", () => {
  const { command, args } = selfCommand(["store", "serve"]);
  equal(command, Deno.execPath());
  deepEqual(args.slice(-3), [`${root}/main.ts`, "store", "serve"]);
  equal(args[args.indexOf("--config") + 1], `${root}/deno.json`);
  equal(args.includes("--no-prompt"), true);
});
