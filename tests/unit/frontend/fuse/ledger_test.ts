/** What a dead server's arena says about its unanswered requests. */
import { deepEqual, equal } from "node:assert/strict";
import {
  type DeadArena,
  heldArenaBytes,
  ledgerOf,
  requestIn,
  strikeOff,
  unansweredSlots,
} from "../../../../src/frontend/fuse/ledger.ts";
import { Requests, slotBytes } from "../../../../src/volume/mod.ts";

const SLOTS = 4, MAX_IO = 8192;
const WRITE_HEADERS_BYTES = 80;

/** An arena in which a live table of requests has its ledger. */
function arena(): { dead: DeadArena; requests: Requests; marks: Uint32Array } {
  const bytes = new Uint8Array(heldArenaBytes(SLOTS, MAX_IO));
  const memory = { address: 0, bytes };
  const requests = new Requests(memory, SLOTS, MAX_IO);
  return { dead: { memory, slots: SLOTS, maxIo: MAX_IO }, requests, marks: ledgerOf(requests) };
}

/** Puts a request's first words where the kernel would have put them. */
function put(requests: Requests, slot: number, length: number, low: number, high = 0): void {
  const at = requests.dataOffset(slot) - WRITE_HEADERS_BYTES;
  new Uint32Array(requests.arena.bytes.buffer, at, 4).set([length, 16, low, high]);
}

Deno.test("marked slots with a header are unanswered, the oldest first", () => {
  const { dead, requests, marks } = arena();
  for (const [slot, low, high] of [[0, 6, 1], [1, 8, 0], [2, 4, 0], [3, 10, 0]] as const) {
    put(requests, slot, 80, low, high);
    marks[slot] = 2;
  }
  deepEqual(unansweredSlots(dead, 2), [2, 1, 3, 0]);
  strikeOff(dead, 1);
  equal(marks[1], 0);
  deepEqual(unansweredSlots(dead, 2), [2, 3, 0]);
});

Deno.test("a request that was sent again keeps its place", () => {
  const { dead, requests, marks } = arena();
  put(requests, 0, 80, 6, 0x80000000);
  put(requests, 1, 80, 8);
  marks.fill(1, 0, 2);
  deepEqual(unansweredSlots(dead, 1), [0, 1]);
});

Deno.test("slots of other exports, slots without a mark and slots that were never read into are not", () => {
  const { dead, requests, marks } = arena();
  put(requests, 0, 80, 2);
  put(requests, 1, 80, 4);
  marks[0] = 3;
  marks[2] = 1;
  deepEqual(unansweredSlots(dead, 1), []);
  deepEqual(unansweredSlots(dead, 3), [0]);
});

Deno.test("a request is read as long as it says, and never beyond its slot", () => {
  const { dead, requests } = arena();
  put(requests, 1, WRITE_HEADERS_BYTES + 512, 2);
  const data = requests.dataOffset(1);
  requests.arena.bytes.fill(7, data, data + 512);
  const request = requestIn(dead, 1);
  equal(request.length, WRITE_HEADERS_BYTES + 512);
  equal(request.at(-1), 7);
  put(requests, 1, 2 ** 31, 2);
  equal(requestIn(dead, 1).length, WRITE_HEADERS_BYTES + MAX_IO);
});

Deno.test("an arena that nobody holds has its ledger elsewhere", () => {
  const memory = { address: 0, bytes: new Uint8Array(SLOTS * slotBytes(MAX_IO)) };
  const marks = ledgerOf(new Requests(memory, SLOTS, MAX_IO));
  marks.fill(9);
  equal(marks.length, SLOTS);
  equal(memory.bytes.some((byte) => byte !== 0), false);
});
