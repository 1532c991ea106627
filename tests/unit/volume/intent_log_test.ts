import { deepEqual, equal, ok, rejects } from "node:assert/strict";
import fc from "fast-check";
import { decodeIntentLog, INTENT_RUNS_MAX } from "../../../src/codec/mod.ts";
import { IntentLog, REGION_BYTES, type Settling } from "../../../src/volume/mod.ts";
import { IntentModel } from "../../support/intent_model.ts";
import { MemoryFiles } from "../../support/memory_files.ts";
import { promiseTurns } from "../../support/promise_turns.ts";

const PATH = "m.log";

/** Nothing is under way and all is stable. */
const settled: Settling = {
  eachWrite: () => {},
  flushSource: () => Promise.resolve(true),
  flushTarget: () => Promise.resolve(true),
  isSettled: () => true,
  syncMap: () => Promise.resolve(),
};

function create(files: MemoryFiles, regions: number, all = false): Promise<IntentLog> {
  return IntentLog.create(files, promiseTurns, PATH, regions * REGION_BYTES, {
    all,
    regionBytes: REGION_BYTES,
  });
}

function hotOnDisk(files: MemoryFiles): [number, number][] | undefined {
  const content = decodeIntentLog(files.read(PATH) as Uint8Array);
  return content?.last.runs.map(({ first, count }) => [first, count]);
}

Deno.test("IntentLog admits a write only once its regions are on disk as hot", async () => {
  const files = new MemoryFiles(), log = await create(files, 100);
  equal(log.admits(5 * REGION_BYTES - 1, 2), false);
  await log.prepare([{ at: 5 * REGION_BYTES - 1, length: 2 }]);
  deepEqual(hotOnDisk(files), [[4, 2]]);
  deepEqual([log.admits(4 * REGION_BYTES, 1), log.admits(6 * REGION_BYTES, 1)], [true, false]);
  await log.close();
});

Deno.test("IntentLog lets a region cool when a whole cycle did not touch it", async () => {
  const files = new MemoryFiles(), log = await create(files, 100);
  await log.prepare([{ at: 0, length: 2 * REGION_BYTES }]);
  await log.cool(settled);
  equal(log.hotRegions, 2, "both were touched before the cycle began");
  ok(log.admits(0, 1));
  await log.cool(settled);
  deepEqual(hotOnDisk(files), [[0, 1]]);
  equal(log.admits(REGION_BYTES, 1), false);
  await log.close();
});

Deno.test("IntentLog keeps hot what is not settled, in flight or whose flush failed", async () => {
  const files = new MemoryFiles(), log = await create(files, 3, true);
  const all = { hot: 3 };
  const hot = () => ({ hot: log.hotRegions });
  await log.cool({ ...settled, flushSource: () => Promise.resolve(false) });
  deepEqual(hot(), all);
  await log.cool({ ...settled, isSettled: () => false });
  deepEqual(hot(), all);
  await rejects(log.cool({ ...settled, syncMap: () => Promise.reject(new Error("full")) }), /full/);
  deepEqual(hot(), all);
  await log.cool({ ...settled, eachWrite: (visit) => visit(0, 3 * REGION_BYTES) });
  deepEqual(hot(), all);
  await log.close();
});

Deno.test("IntentLog tells of more than it must rather than of more runs than a block has room for", async () => {
  const files = new MemoryFiles(), log = await create(files, 4 * INTENT_RUNS_MAX);
  for (let i = 0; i < 2 * INTENT_RUNS_MAX; i++) log.want(2 * i * REGION_BYTES, 1);
  await log.prepare([{ at: 0, length: 1 }]);
  const runs = hotOnDisk(files) ?? [];
  equal(runs.length, INTENT_RUNS_MAX);
  const covered = new Set(
    runs.flatMap(([first, count]) => Array.from({ length: count }, (_, i) => first + i)),
  );
  for (let i = 0; i < 2 * INTENT_RUNS_MAX; i++) ok(covered.has(2 * i), `region ${2 * i}`);
  await log.close();
});

Deno.test("IntentLog.open() goes on with what was hot, and refuses a damaged or another volume's log", async () => {
  const files = new MemoryFiles(), sizeBytes = 10 * REGION_BYTES - 5;
  await (await create(files, 10)).prepare([{ at: 9 * REGION_BYTES, length: 1 }]);
  const hot = [{ at: 9 * REGION_BYTES, length: REGION_BYTES - 5 }];
  deepEqual(IntentLog.hotIn(files, PATH, sizeBytes), hot);
  const log = await IntentLog.open(files, promiseTurns, PATH, sizeBytes);
  ok(log.admits(9 * REGION_BYTES, 1));
  await log.close();
  const open = (size: number) => IntentLog.open(files, promiseTurns, PATH, size);
  await rejects(open(11 * REGION_BYTES), /damaged/);
  await files.replace(PATH, (files.read(PATH) as Uint8Array).fill(1, 0, 8192));
  await rejects(open(sizeBytes), /damaged/);
  equal(IntentLog.hotIn(files, PATH, sizeBytes), undefined);
});

Deno.test("IntentLog writes a block that failed again in its place, by a number that was never there", async () => {
  const files = new MemoryFiles();
  await (await create(files, 10)).close();
  const written: [number, bigint][] = [], failures: unknown[] = [];
  const openBlocks = files.openBlocks.bind(files);
  files.openBlocks = (path) => ({
    ...openBlocks(path),
    write: (at, bytes) => {
      written.push([at, new DataView(bytes.buffer).getBigUint64(8, true)]);
      return written.length === 2
        ? Promise.reject(new Error("EIO"))
        : openBlocks(path).write(at, bytes);
    },
  });
  const log = await IntentLog.open(files, promiseTurns, PATH, 10 * REGION_BYTES);
  log.onFailed = (error) => void failures.push(error);
  await log.prepare([{ at: 0, length: 1 }]);
  // First what the ended process left, which may be nowhere but in the page cache.
  deepEqual(written, [[4096, 1n], [0, 2n], [0, 4n]]);
  equal(failures.length, 1);
  await log.close();
});

Deno.test("IntentLog takes a small volume in small regions", async () => {
  const files = new MemoryFiles();
  const log = await IntentLog.create(files, promiseTurns, PATH, 64 * REGION_BYTES, { all: true });
  deepEqual([log.hotRegions, log.hotBytes], [256, 64 * REGION_BYTES]);
  await log.close();
});

Deno.test("IntentLog that was closed holds nobody back", async () => {
  const log = await create(new MemoryFiles(), 10);
  const waiting = log.prepare([{ at: 0, length: 1 }]);
  await log.close();
  await waiting;
  ok(log.admits(9 * REGION_BYTES, 1));
});

Deno.test("IntentLog: whenever the power is lost, what may be wrong lies in a hot region", async () => {
  const steps = fc.array(fc.tuple(fc.nat(99), fc.nat(1_000_000)), {
    minLength: 20,
    maxLength: 150,
  });
  await fc.assert(
    fc.asyncProperty(steps, async (list) => {
      const model = await IntentModel.create();
      for (const [what, where] of list) {
        await model.step(what, where);
        model.check();
      }
      await model.end();
    }),
    { numRuns: 150 },
  );
});
