/** Events of connections that repeat: what passes, what is held back, what is said of it. */
import { deepEqual, equal } from "node:assert/strict";
import { Repeats, REPEATS_TOLD, REPEATS_WINDOW_MS } from "../../../src/dataplane/repeats.ts";
import type { DataPlaneEvent } from "../../../src/dataplane/messages.ts";
import { stillClock } from "../../support/still_clock.ts";

type Told = Omit<DataPlaneEvent, "at_ms">;

function setUp() {
  let now_ms = 0;
  const told: Told[] = [];
  const repeats = new Repeats(
    { ...stillClock, monotonicMs: () => now_ms },
    (event) => told.push(event),
  );
  const advance = (ms: number) => {
    now_ms += ms;
    repeats.keepHouse();
  };
  return { repeats, told, advance };
}

const lost = (message: string, volume = "data"): Told => ({
  type: "nbd.lost",
  severity: "warning",
  volume,
  message,
});
const back = (message: string): Told => ({ ...lost(message), type: "nbd.connected" });

Deno.test("tell() lets the first of a kind pass as they are, at once", () => {
  const { repeats, told, advance } = setUp();
  repeats.tell(lost("a"));
  repeats.tell(back("a"));
  repeats.tell(lost("a", "other"));
  deepEqual(told, [lost("a"), back("a"), lost("a", "other")]);
  advance(REPEATS_WINDOW_MS);
  equal(told.length, 3);
});

Deno.test("a connection that comes and goes for ever is told a few times a window, its last state last", () => {
  const { repeats, told, advance } = setUp();
  for (let round = 0; round < 1000; round++) {
    repeats.tell(lost(`${round}`));
    repeats.tell(back(`${round}`));
  }
  repeats.tell(lost("for good"));
  equal(told.length, 2 * REPEATS_TOLD);
  advance(REPEATS_WINDOW_MS - 1);
  equal(told.length, 2 * REPEATS_TOLD);
  advance(1);
  deepEqual(told.slice(2 * REPEATS_TOLD), [
    { ...back("999"), data: { repeated: 1000 - REPEATS_TOLD } },
    { ...lost("for good"), data: { repeated: 1001 - REPEATS_TOLD } },
  ]);
});

Deno.test("after its window a kind is told at once again", () => {
  const { repeats, told, advance } = setUp();
  for (let round = 0; round <= REPEATS_TOLD; round++) repeats.tell(lost("first"));
  advance(REPEATS_WINDOW_MS);
  repeats.tell(lost("second"));
  deepEqual(told.at(-1), lost("second"));
});
