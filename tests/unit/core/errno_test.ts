import { equal } from "node:assert/strict";
import { errnoText } from "../../../src/core/mod.ts";

Deno.test("errnoText() says the name and what it means, whatever the sign", () => {
  equal(errnoText(28), "ENOSPC: no space left");
  equal(errnoText(-28), "ENOSPC: no space left");
});

Deno.test("errnoText() falls back to the number", () => {
  equal(errnoText(-4095), "errno 4095");
});
