/** Doubtful chunks against a target that answers as it is told, and the batches that chunks make. */
import { deepEqual } from "node:assert/strict";
import { Comparison, runsOf } from "../../../src/mirror/comparison.ts";
import { ChangeMap, CHUNK_BYTES, MirrorLink } from "../../../src/volume/mod.ts";
import { MemoryFiles } from "../../support/memory_files.ts";
import { promiseTurns } from "../../support/promise_turns.ts";

const CHUNKS = [0, 1, 2];

/** Two sides that are equal but for chunk 1, all in doubt. @param onAsk before the target answers. */
async function doubtfulSides(onAsk: (link: MirrorLink) => void) {
  const sizeBytes = CHUNKS.length * CHUNK_BYTES;
  const map = await ChangeMap.create(new MemoryFiles(), "m.map", sizeBytes, { doubtful: true });
  const link = new MirrorLink({} as never, map);
  const comparison = new Comparison({
    volume: { sizeBytes, hasWriteIn: () => false } as never,
    link,
    turns: promiseTurns,
    ask: (extents) => {
      onAsk(link);
      return Promise.resolve(extents.map(({ at }) => at === CHUNK_BYTES ? "other" : "same"));
    },
    digestSource: () => Promise.resolve("same"),
    flushTarget: () => Promise.resolve(),
    stepBytes: () => CHUNK_BYTES,
    limit: (work) => work,
    onCompared: () => {},
  });
  return { comparison, map };
}

Deno.test("compareDoubtful() clears what is equal, unstable still, and leaves the rest dirty without a doubt", async () => {
  const { comparison, map } = await doubtfulSides(() => {});
  deepEqual(await comparison.compareDoubtful(CHUNKS), { equal: 2, unequal: 1 });
  deepEqual(CHUNKS.map((chunk) => map.isDirty(chunk)), [false, true, false]);
  deepEqual(CHUNKS.map((chunk) => map.isDoubtful(chunk)), [false, false, false]);
  deepEqual([map.isUnstable(0, 1), map.isUnstable(CHUNK_BYTES, 1)], [true, false]);
});

Deno.test("compareDoubtful() says nothing by the answer of a target that has lost something since", async () => {
  const { comparison, map } = await doubtfulSides((link) => link.targetLost());
  deepEqual(await comparison.compareDoubtful(CHUNKS), { equal: 0, unequal: 0 });
  deepEqual(CHUNKS.map((chunk) => map.isDirty(chunk)), [true, true, true]);
  deepEqual(CHUNKS.map((chunk) => map.isDoubtful(chunk)), [true, true, true]);
});

Deno.test("runsOf() puts adjacent numbers together, so many at most", () => {
  deepEqual(runsOf([], 4), []);
  deepEqual(runsOf([1, 2, 3, 5, 6, 9], 2), [[1, 2], [3], [5, 6], [9]]);
  deepEqual(runsOf([0, 1, 2, 3, 4], 4), [[0, 1, 2, 3], [4]]);
});
