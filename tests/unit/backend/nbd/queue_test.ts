import assert from "node:assert/strict";
import { OpList, OpQueue } from "../../../../src/backend/nbd/queue.ts";

function members(list: OpList): number[] {
  const found: number[] = [];
  for (let op = list.first; op >= 0; op = list.after(op)) found.push(op);
  return found;
}

Deno.test("OpList keeps the order of submission while members leave from anywhere", () => {
  const list = new OpList(8);
  for (const op of [5, 2, 7, 0]) list.append(op);
  list.remove(2);
  assert.deepEqual(members(list), [5, 7, 0]);
  list.remove(5);
  list.append(2);
  list.remove(0);
  assert.deepEqual(members(list), [7, 2]);
  list.remove(7);
  list.remove(2);
  assert.deepEqual(members(list), []);
  assert.equal(list.length, 0);
  list.append(3);
  assert.deepEqual(members(list), [3]);
});

Deno.test("OpQueue is first in, first out around its end, and never grows", () => {
  const queue = new OpQueue(3);
  for (let round = 0; round < 5; round++) {
    for (const op of [1, 2, 0]) queue.push(op);
    assert.throws(() => queue.push(1), /queued twice/);
    assert.deepEqual([queue.shift(), queue.shift()], [1, 2]);
    queue.clear();
    queue.push(2);
    assert.equal(queue.shift(), 2);
  }
  assert.throws(() => queue.shift(), /empty/);
});
