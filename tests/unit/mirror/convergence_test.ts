import assert from "node:assert/strict";
import { WriterWatch } from "../../../src/mirror/convergence.ts";

const MIB = 2 ** 20;

/** A round that copies, and a writer that makes dirty, in steps. */
function round(dirtyBytes = 256 * MIB) {
  const link = { changedBytes: 7 * MIB, map: { dirtyBytes } }, copier = { copiedBytes: 3 * MIB };
  const watch = new WriterWatch(link, copier);
  const step = (copied: number, changed: number) => {
    copier.copiedBytes += copied;
    link.changedBytes += changed;
    return watch.keepsUp;
  };
  return { watch, step };
}

Deno.test("WriterWatch lets a round go on that gains on the writer", () => {
  const { watch, step } = round();
  for (let i = 0; i < 20; i++) assert.equal(step(8 * MIB, 3 * MIB), false);
  assert.equal(watch.kept, false);
});

Deno.test("WriterWatch ends a round when what was copied lately is dirty again as fast", () => {
  const { watch, step } = round();
  for (let i = 0; i < 4; i++) assert.equal(step(16 * MIB, MIB), false);
  assert.equal(step(8 * MIB, 8 * MIB), false, "too little to say");
  assert.equal(step(8 * MIB, 8 * MIB), true);
  assert.equal(step(64 * MIB, 0), true, "the round is over");
  assert.equal(watch.kept, true);
});

Deno.test("WriterWatch keeps more than some GiB out of write-through", () => {
  const { step } = round(64 * 1024 * MIB);
  for (let i = 0; i < 20; i++) assert.equal(step(16 * MIB, 16 * MIB), false);
});
