/** The event log: what a reader can rely on over restarts, crashes and broken listeners. */
import { deepEqual, equal } from "node:assert/strict";
import { EventLog } from "../../../src/agent/events.ts";
import { silentLog, systemClock } from "../../../src/core/mod.ts";
import { tempDir } from "../../support/temp.ts";

Deno.test("EventLog keeps identifiers rising over restarts and over a line cut short", () => {
  using temp = tempDir();
  const options = { path: temp.file("events.jsonl"), log: silentLog, clock: systemClock };
  const first = new EventLog(options);
  first.add({ type: "a", message: "one", volume: "data" });
  first.add({ type: "b", message: "two" });
  first.close();
  Deno.writeTextFileSync(options.path, '{"id": 3, "at', { append: true });
  const second = new EventLog(options);
  equal(second.add({ type: "c", message: "three" }).id, 3);
  second.close();
  const third = new EventLog(options);
  deepEqual(third.list({ after: 0 }).map(({ id, type }) => [id, type]), [[1, "a"], [2, "b"], [
    3,
    "c",
  ]]);
  deepEqual(third.list({ after: 1, limit: 1 }).map(({ id }) => id), [2]);
  deepEqual(third.list({ limit: 1 }).map(({ id }) => id), [3]);
  deepEqual(third.list({ volume: "data" }).map(({ id }) => id), [1]);
  third.close();
});

Deno.test("EventLog calls listeners until they abort, and survives one that throws", () => {
  using temp = tempDir();
  const events = new EventLog({ path: temp.file("e"), log: silentLog, clock: systemClock });
  const seen: string[] = [];
  const ends = new AbortController();
  events.subscribe(() => {
    throw new Error("broken");
  }, ends.signal);
  events.subscribe(({ type }) => seen.push(type), ends.signal);
  events.add({ type: "a", message: "" });
  ends.abort();
  events.add({ type: "b", message: "" });
  deepEqual(seen, ["a"]);
  events.close();
});
