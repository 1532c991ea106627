/** A queue that says no instead of growing. */
import { deepEqual, equal } from "node:assert/strict";
import fc from "fast-check";
import { BoundedQueue } from "../../../src/core/queue.ts";

Deno.test("BoundedQueue refuses when full and takes again after a shift", () => {
  const queue = new BoundedQueue<string>(2);
  deepEqual([queue.push("a"), queue.push("b"), queue.push("c")], [true, true, false]);
  equal(queue.length, 2);
  equal(queue.shift(), "a");
  equal(queue.push("d"), true);
  deepEqual([queue.shift(), queue.shift(), queue.shift()], ["b", "d", undefined]);
  equal(queue.length, 0);
});

Deno.test("BoundedQueue behaves like a list with a limit", () => {
  const operations = fc.array(fc.option(fc.integer(), { nil: undefined }), { maxLength: 200 });
  fc.assert(fc.property(fc.integer({ min: 1, max: 8 }), operations, (capacity, pushes) => {
    const queue = new BoundedQueue<number>(capacity);
    const list: number[] = [];
    for (const item of pushes) {
      if (item === undefined) equal(queue.shift(), list.shift());
      else {
        equal(queue.push(item), list.length < capacity);
        if (list.length < capacity) list.push(item);
      }
      equal(queue.length, list.length);
    }
  }));
});
