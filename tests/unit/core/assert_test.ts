/** Broken invariants are thrown as such, never as expected failures. */
import { equal, throws } from "node:assert/strict";
import { assert, BrokenInvariant, need, unreachable } from "../../../src/core/assert.ts";

Deno.test("assert() throws BrokenInvariant only when the condition is false", () => {
  assert(1, "fine");
  for (const condition of [false, 0, "", undefined, null]) {
    throws(() => assert(condition, "slots in use"), new BrokenInvariant("slots in use"));
  }
});

Deno.test("need() lets falsy values through and names what is missing", () => {
  equal(need(0, "count"), 0);
  equal(need("", "text"), "");
  equal(need(false, "flag"), false);
  throws(() => need(undefined, "the target"), new BrokenInvariant("the target is missing"));
  throws(() => need(null, "the target"), BrokenInvariant);
});

Deno.test("unreachable() throws with the value it met", () => {
  throws(() => unreachable({ kind: "new" } as never), /unreachable: {"kind":"new"}/);
});
