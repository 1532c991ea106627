import { deepEqual, equal } from "node:assert/strict";
import { type Backend, BackendCalls, OPERATION, Operations } from "../../../src/backend/mod.ts";
import { promiseTurns } from "../../support/promise_turns.ts";

const WHERE = { at: 0, length: 512, address: 0 };

/** Keeps what is submitted until it is told to answer. */
class Silent {
  readonly held: number[] = [];

  constructor(readonly operations: Operations) {}

  get backend(): Backend {
    return { submit: (op: number) => void this.held.push(op) } as unknown as Backend;
  }

  answerFirst(): void {
    const op = this.held.shift();
    if (op !== undefined) this.operations.complete(op, 0);
  }
}

Deno.test("BackendCalls takes no more operations than it may, and goes on in order when some end", async () => {
  const operations = new Operations(8), calls = new BackendCalls(operations, promiseTurns, 4);
  const silent = new Silent(operations), { backend } = silent, ended: number[] = [];
  const all = Array.from(
    { length: 10 },
    (_, i) => calls.run(backend, OPERATION.read, WHERE).then(() => ended.push(i)),
  );
  equal(operations.inUse, 4);
  for (let i = 0; i < 10; i++) silent.answerFirst();
  await Promise.all(all);
  deepEqual(ended, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  equal(operations.inUse, 0);
});

Deno.test("BackendCalls lets no backend that holds everything keep another one waiting", async () => {
  const operations = new Operations(256), calls = new BackendCalls(operations, promiseTurns, 128);
  const lost = new Silent(operations), well = new Silent(operations), held = lost.backend;
  for (let i = 0; i < 200; i++) calls.run(held, OPERATION.read, WHERE);
  equal(lost.held.length, 64);
  const answer = calls.flush(well.backend);
  well.answerFirst();
  equal(await answer, 0);
  equal(lost.held.length, 64);
});
