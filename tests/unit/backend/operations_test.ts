import assert from "node:assert/strict";
import { OPERATION, Operations } from "../../../src/backend/mod.ts";

const take = (operations: Operations, owner: number, index = 0) =>
  operations.take(owner, index, OPERATION.read, 0, 512, 4096, 0);

Deno.test("Operations use an owner's id again when the owner has left", () => {
  const operations = new Operations(4);
  const ids = new Set<number>();
  for (let i = 0; i < 100_000; i++) {
    const owner = operations.registerOwner(() => {});
    ids.add(owner);
    operations.unregisterOwner(owner);
  }
  assert.deepEqual(ids, new Set([0]));
});

Deno.test("Operations tell an owner that has left of what was in flight, and nobody else", () => {
  const operations = new Operations(4);
  const told: string[] = [];
  const first = operations.registerOwner((index, errno) => told.push(`first ${index} ${errno}`));
  const op = take(operations, first, 7);
  operations.unregisterOwner(first);
  const second = operations.registerOwner((index) => told.push(`second ${index}`));
  assert.notEqual(second, first);
  operations.complete(op, 5);
  operations.complete(take(operations, second, 1), 0);
  assert.deepEqual(told, ["first 7 5", "second 1"]);
  // Nothing of it is in flight any more: the next one gets its id.
  assert.equal(operations.registerOwner(() => {}), first);
  assert.equal(operations.inUse, 0);
});
