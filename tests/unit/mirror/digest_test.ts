import assert from "node:assert/strict";
import { isZero, loadDigest } from "../../../src/mirror/mod.ts";

Deno.test("loadDigest() gives xxHash64 with seed 0", async () => {
  const digest = await loadDigest();
  // Reference values of the xxHash project's own test vectors for XXH64, seed 0.
  assert.equal(digest(new Uint8Array(0)), "ef46db3751d8e999");
  assert.equal(digest(new TextEncoder().encode("abc")), "44bc2cf5ad770999");
});

Deno.test("isZero() sees every single bit, also where a float would be zero or not a number", () => {
  const bytes = new Uint8Array(64 + 3);
  assert.ok(isZero(bytes));
  for (let at = 0; at < bytes.length; at++) {
    for (let bit = 0; bit < 8; bit++) {
      bytes[at] = 1 << bit;
      assert.ok(!isZero(bytes), `byte ${at} bit ${bit}`);
      bytes[at] = 0;
    }
  }
  bytes.fill(0xff);
  assert.ok(!isZero(bytes));
});
