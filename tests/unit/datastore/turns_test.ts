import assert from "node:assert/strict";
import { Turns } from "../../../src/datastore/turns.ts";

Deno.test("work for one key runs in turn, also after a failure; other keys do not wait", async () => {
  const turns = new Turns();
  const seen: string[] = [];
  const gate = Promise.withResolvers<void>();
  const first = turns.run("a", async () => {
    seen.push("a1 begins");
    await gate.promise;
    seen.push("a1 ends");
    throw new Error("a1");
  });
  const second = turns.run("a", () => Promise.resolve(seen.push("a2")));
  await turns.run("b", () => Promise.resolve(seen.push("b")));
  gate.resolve();
  await assert.rejects(first, /a1/);
  await second;
  assert.deepEqual(seen, ["a1 begins", "b", "a1 ends", "a2"]);
});
