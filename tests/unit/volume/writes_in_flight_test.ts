import assert from "node:assert/strict";
import { seededRng, type Turns } from "../../../src/core/mod.ts";
import { Requests, slotBytes } from "../../../src/volume/mod.ts";
import { WritesInFlight } from "../../../src/volume/writes_in_flight.ts";

const MAX_IO = 4096, SLOTS = 8;

/** The runtime's own loop: nothing has to be woken. */
const turns: Turns = {
  sleep: () => Promise.resolve(),
  deferred: () => Promise.withResolvers(),
  wake: () => {},
};

function setting() {
  const arena = { address: 0, bytes: new Uint8Array(SLOTS * slotBytes(MAX_IO)) };
  const requests = new Requests(arena, SLOTS, MAX_IO);
  const writes = new WritesInFlight(requests, turns);
  const begin = (slot: number, at: number, length: number) => {
    requests.at[slot] = at;
    requests.length[slot] = length;
    writes.add(slot);
  };
  return { writes, begin };
}

Deno.test("WritesInFlight.touch() sees overlaps only, and never a flush", () => {
  const { writes, begin } = setting();
  begin(3, 100, 50);
  begin(5, 0, 0);
  assert.ok(writes.touch(149, 1));
  assert.ok(writes.touch(0, 101));
  assert.ok(!writes.touch(150, 10));
  assert.ok(!writes.touch(0, 100));
  writes.remove(3);
  assert.ok(!writes.touch(0, 4096));
  assert.equal(writes.count, 1);
});

Deno.test("WritesInFlight keeps just the slots that were added and not removed, in any order", () => {
  const { writes, begin } = setting();
  const rng = seededRng(5), expected = new Set<number>();
  for (let step = 0; step < 2000; step++) {
    const slot = rng.below(SLOTS);
    if (rng.below(2) === 0) {
      writes.remove(slot);
      expected.delete(slot);
    } else if (!expected.has(slot)) {
      begin(slot, slot, 1);
      expected.add(slot);
    }
    const found = Array.from({ length: writes.count }, (_, index) => writes.slotAt(index));
    assert.deepEqual(found.sort(), [...expected].sort());
  }
});

Deno.test("WritesInFlight.leave() waits for the last write in its range, and for no other", async () => {
  const { writes, begin } = setting();
  begin(0, 0, 10);
  begin(1, 5, 10);
  begin(2, 100, 10);
  let left = false;
  const leaving = writes.leave({ at: 8, length: 1 }).then(() => left = true);
  const end = async (slot: number) => {
    writes.remove(slot);
    writes.tellWaiters();
    await null;
    await null;
  };
  await end(0);
  assert.equal(left, false);
  await end(1);
  await leaving;
  assert.equal(writes.count, 1);
});
