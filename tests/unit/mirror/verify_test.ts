/** A verify against two sides that answer as they are told: the order of its work, its sums, its cursor. */
import { deepEqual, equal, ok } from "node:assert/strict";
import { type Clock, PsmaError, type Turns } from "../../../src/core/mod.ts";
import type { Verdict } from "../../../src/mirror/comparison.ts";
import { Verify, withRange } from "../../../src/mirror/verify.ts";
import type { VerifyRecord } from "../../../src/volume/mod.ts";
import { freshVerify } from "../../support/mirrored_volume.ts";

const CHUNK = 65_536;

/** Sleeping takes no time but the clock's. */
class InstantTurns implements Turns {
  now_ms = 0;
  readonly clock: Clock = {
    nowMs: () => Date.UTC(2030, 0, 1) + this.now_ms,
    monotonicMs: () => this.now_ms,
    sleep: () => Promise.reject(new Error("turns are slept, not the clock")),
  };
  sleep(ms: number): Promise<void> {
    this.now_ms += ms;
    return Promise.resolve();
  }
  deferred<T>() {
    return Promise.withResolvers<T>();
  }
  wake(): void {}
}

interface Told {
  readonly verdictOf: (chunk: number, look: number) => Verdict | Error;
  readonly locked?: (chunk: number) => Verdict | Error;
  readonly holes?: readonly number[];
}

/** Runs a verify to its end. */
async function run(record: VerifyRecord, { verdictOf, locked, holes = [] }: Told) {
  const turns = new InstantTurns(), saved: VerifyRecord[] = [], found: number[] = [];
  const looks = new Map<number, number>();
  const ended = Promise.withResolvers<VerifyRecord>();
  const verify = new Verify({
    record,
    turns,
    clock: turns.clock,
    sides: {
      chunkBytes: CHUNK,
      compare(chunks) {
        const verdicts = new Map<number, Verdict>();
        for (const chunk of chunks) {
          const look = (looks.get(chunk) ?? 0) + 1;
          looks.set(chunk, look);
          const verdict = verdictOf(chunk, look);
          if (verdict instanceof Error) return Promise.reject(verdict);
          verdicts.set(chunk, verdict);
        }
        return Promise.resolve(verdicts);
      },
      compareLocked(chunk) {
        const verdict = locked?.(chunk) ?? "equal";
        return verdict instanceof Error ? Promise.reject(verdict) : Promise.resolve(verdict);
      },
      holes: (chunks) => Promise.resolve(new Set(chunks.filter((chunk) => holes.includes(chunk)))),
      rangeOf: (chunk) => ({ at: chunk * CHUNK, length: CHUNK }),
    },
    waitsFor: () => undefined,
    admit: () => Promise.resolve(),
    save: (now) => Promise.resolve(void saved.push(now)),
    onMismatch: ({ at }) => void found.push(at / CHUNK),
    onEnd: ended.resolve,
  });
  verify.start();
  return { record: await ended.promise, looks, saved, found, elapsed_ms: turns.now_ms };
}

const fresh = (chunks: number) => freshVerify(chunks * CHUNK);

Deno.test("Verify looks at each chunk once, at holes not at all, and sums up everything", async () => {
  const { record, looks, found } = await run(fresh(3000), {
    verdictOf: (chunk) => chunk === 7 ? "behind" : chunk === 2999 ? "unequal" : "equal",
    holes: [100, 101, 2000],
  });
  equal(record.state, "done");
  deepEqual([looks.size, [...looks.values()].every((times) => times === 1)], [2997, true]);
  equal(record.equal_bytes, 2998 * CHUNK);
  equal(record.behind_bytes, CHUNK);
  deepEqual(record.mismatches, [{ at: 2999 * CHUNK, length: CHUNK }]);
  deepEqual(found, [2999]);
});

Deno.test("Verify tries again at the end what was written, then with writes held, then says busy", async () => {
  const { record, looks } = await run(fresh(40), {
    verdictOf: (chunk, look) => chunk < 3 ? chunk === 0 && look === 2 ? "equal" : "busy" : "equal",
    locked: (chunk) => chunk === 1 ? "equal" : new PsmaError("timeout/check", "too slow"),
  });
  deepEqual([looks.get(0), looks.get(1), looks.get(2), looks.get(3)], [2, 2, 2, 1]);
  equal(record.equal_bytes, 39 * CHUNK);
  equal(record.busy_bytes, CHUNK);
  deepEqual(record.later, []);
});

Deno.test("Verify goes on when a side did not answer, and counts nothing twice", async () => {
  let failures = 3;
  const { record } = await run(fresh(100), {
    verdictOf: (chunk) => chunk === 50 && failures-- > 0 ? new Error("away") : "equal",
  });
  equal(record.equal_bytes, 100 * CHUNK);
});

Deno.test("Verify keeps its rate, and its place on disk while it goes", async () => {
  const { elapsed_ms, saved } = await run(
    { ...fresh(1600), max_rate_bytes_per_s: 10 * 2 ** 20 },
    { verdictOf: () => "equal" },
  );
  ok(elapsed_ms >= 9000 && elapsed_ms <= 11_000, `${elapsed_ms} ms for 100 MiB at 10 MiB/s`);
  const places = saved.map(({ done_bytes }) => done_bytes);
  ok(places.length >= 2, "saved on the way");
  deepEqual(places, [...places].sort((a, b) => a - b));
});

Deno.test("Verify goes on from a record's place with what it had found", async () => {
  const before = { ...fresh(10), done_bytes: 6 * CHUNK, equal_bytes: 5 * CHUNK, later: [2] };
  const { record, looks } = await run(before, { verdictOf: () => "equal" });
  deepEqual([...looks.keys()].sort((a, b) => a - b), [2, 6, 7, 8, 9]);
  equal(record.equal_bytes, 10 * CHUNK);
});

Deno.test("withRange() merges what touches, keeps order, and is bounded", () => {
  const range = (at: number, length = 1) => ({ at, length });
  deepEqual(withRange([range(0), range(5)], range(1), 9), [range(0, 2), range(5)]);
  deepEqual(withRange([range(0), range(2)], range(1), 9), [range(0, 3)]);
  deepEqual(withRange([range(4)], range(0), 9), [range(0), range(4)]);
  deepEqual(withRange([range(0), range(2)], range(4), 2), [range(0), range(2)]);
  deepEqual(withRange([range(0), range(2)], range(3), 2), [range(0), range(2, 2)]);
});
