import assert from "node:assert/strict";
import { DataRuns, StatusQuestion } from "../../../../src/backend/nbd/extents.ts";
import { NBD_STATE } from "../../../../src/codec/mod.ts";

const KIB = 1024, CHUNK = 64 * KIB;

Deno.test("DataRuns joins what touches or has a short hole between", () => {
  const runs = new DataRuns();
  runs.add(0, 0);
  runs.add(4 * KIB, 4 * KIB);
  runs.add(8 * KIB, 4 * KIB);
  runs.add(12 * KIB + CHUNK - 1, 1);
  runs.add(12 * KIB + 2 * CHUNK, KIB);
  assert.deepEqual(runs.extents, [
    { at: 4 * KIB, length: 8 * KIB + CHUNK },
    { at: 12 * KIB + 2 * CHUNK, length: KIB },
  ]);
});

Deno.test("DataRuns is bounded, and a bounded list still covers all data", () => {
  const runs = new DataRuns(100), places: number[] = [];
  // Half of the holes are a chunk long, a quarter two chunks, and so on.
  for (let i = 1, at = 0; i <= 10_000; i++, at += CHUNK + CHUNK * (i & -i)) {
    runs.add(at, CHUNK);
    places.push(at);
  }
  const { extents } = runs;
  assert.ok(extents.length <= 100 && extents.length > 50, `${extents.length} runs`);
  extents.reduce((end, { at, length }) => {
    assert.ok(at > end, "in order and apart");
    return at + length;
  }, -1);
  for (const at of places) {
    assert.ok(extents.some((one) => one.at <= at && at + CHUNK <= one.at + one.length), `${at}`);
  }
});

Deno.test("StatusQuestion counts as data whatever is not said to read as zeros, up to its end", () => {
  const runs = new DataRuns(), question = new StatusQuestion(runs, 10 * CHUNK, 10 * CHUNK);
  question.onExtent(CHUNK, NBD_STATE.hole | NBD_STATE.zero);
  question.onExtent(CHUNK, NBD_STATE.hole);
  assert.equal(question.told, 2 * CHUNK);
  question.onExtent(CHUNK, NBD_STATE.zero);
  question.onExtent(100 * CHUNK, 0);
  assert.equal(question.told, 10 * CHUNK);
  assert.deepEqual(runs.extents, [
    { at: 11 * CHUNK, length: CHUNK },
    { at: 13 * CHUNK, length: 7 * CHUNK },
  ]);
});
