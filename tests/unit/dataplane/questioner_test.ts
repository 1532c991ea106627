/** Questions to the main thread: answered, refused, or late; and no timer outlives its question. */
import { deepEqual, equal, rejects } from "node:assert/strict";
import type { FromWorker } from "../../../src/dataplane/messages.ts";
import { Questioner } from "../../../src/dataplane/questioner.ts";

const TARGET = {
  store: "far",
  store_volume: "v",
  size_bytes: 1,
  backend: { type: "file", path: "/v" },
} as const;
const QUESTION = { target: TARGET, extents: [] };

function questioner() {
  const asked: number[] = [], timers = new Set<() => void>();
  const one = new Questioner({
    deferred: () => Promise.withResolvers(),
    alarm: () => {
      const { promise, resolve } = Promise.withResolvers<void>();
      const end = () => {
        timers.delete(end);
        resolve();
      };
      timers.add(end);
      return { over: promise, cancel: end };
    },
  }, (message: FromWorker) => {
    if (message.kind === "question") asked.push(message.seq);
  });
  return { one, asked, timers };
}

Deno.test("Questioner gives each answer to its question, and keeps no timer of either", async () => {
  const { one, asked, timers } = questioner();
  const first = one.ask("digests", QUESTION), second = one.ask("digests", QUESTION);
  deepEqual(asked, [1, 2]);
  equal(timers.size, 2);
  one.answered(2, { ok: true, value: ["b"] });
  one.answered(1, { ok: false, error: { code: "io/read", message: "Cannot read" } });
  deepEqual(await second, ["b"]);
  await rejects(first, { code: "io/read" });
  equal(timers.size, 0);
});

Deno.test("Questioner waits for no answer longer than its time limit", async () => {
  const { one, timers } = questioner();
  const asked = one.ask("digests", QUESTION);
  for (const ring of [...timers]) ring();
  await rejects(asked, { code: "timeout/store" });
  one.answered(1, { ok: true, value: [] });
  equal(timers.size, 0);
});
