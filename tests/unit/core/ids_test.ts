/** Names reach paths, URIs and exports: nothing that is dangerous there may pass. */
import { deepEqual, equal, throws } from "node:assert/strict";
import fc from "fast-check";
import { checkName } from "../../../src/core/ids.ts";

Deno.test("checkName() lets good names through unchanged", () => {
  for (const name of ["a", "7", "data", "web-01.eu_west", "a".repeat(64)]) {
    equal(checkName(name), name);
  }
});

Deno.test("checkName() refuses what a path, a URI or a shell would read otherwise", () => {
  const bad = ["", ".", "..", "a..b", "/etc", "a/b", "-x", "x-", ".hidden", "Data", "a b", "a\n"];
  for (const name of [...bad, "a\0", "ä", "a".repeat(65), "%2e", "a:b"]) {
    throws(() => checkName(name), { code: "usage/name" }, JSON.stringify(name));
  }
});

Deno.test("checkName() says which name of what it refuses", () => {
  throws(() => checkName("A", "store"), {
    message: 'Cannot use store name: "A" is not a valid name',
  });
});

Deno.test("no accepted name leaves its folder", () => {
  fc.assert(fc.property(fc.string({ maxLength: 70 }), (name) => {
    try {
      checkName(name);
    } catch {
      return true;
    }
    const path = new URL(name, "file:///state/").pathname;
    deepEqual(path, `/state/${name}`);
    return true;
  }));
});
