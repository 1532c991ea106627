import assert from "node:assert/strict";
import { KeyedQueue } from "../../../src/datastore/keyed_queue.ts";

Deno.test("work for one key runs in turn, also after a failure; other keys do not wait", async () => {
  const queue = new KeyedQueue();
  const seen: string[] = [];
  const gate = Promise.withResolvers<void>();
  const first = queue.run("a", async () => {
    seen.push("a1 begins");
    await gate.promise;
    seen.push("a1 ends");
    throw new Error("a1");
  });
  const second = queue.run("a", () => Promise.resolve(seen.push("a2")));
  await queue.run("b", () => Promise.resolve(seen.push("b")));
  gate.resolve();
  await assert.rejects(first, /a1/);
  await second;
  assert.deepEqual(seen, ["a1 begins", "b", "a1 ends", "a2"]);
});
