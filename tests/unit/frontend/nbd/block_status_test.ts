/** How a volume's runs of data become the extents of an answer. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { mapExtents } from "../../../../src/frontend/nbd/block_status.ts";

const MIB = 1 << 20, DATA = 0, HOLE = 3;

interface Run {
  readonly at: number;
  readonly length: number;
}

/** A volume that holds data in these runs, ascending, and remembers what it was asked. */
function volumeWith(runs: readonly Run[]) {
  const asked: Run[] = [];
  return {
    asked,
    dataExtents(from: number, length: number): Promise<readonly Run[]> {
      asked.push({ at: from, length });
      const within = runs.map((run) => {
        const at = Math.max(run.at, from);
        return { at, length: Math.min(run.at + run.length, from + length) - at };
      });
      return Promise.resolve(within.filter((run) => run.length > 0));
    },
  };
}

const map = (runs: readonly Run[], at: number, length: number, most = 100) =>
  mapExtents({ volume: volumeWith(runs), at, length, most }, () => {});

Deno.test("mapExtents() tells data from holes, from the first byte asked for to the last", async () => {
  assert.deepEqual(await map([], 10, 100), [{ length: 100, flags: HOLE }]);
  assert.deepEqual(await map([{ at: 0, length: 5000 }], 10, 100), [{ length: 100, flags: DATA }]);
  assert.deepEqual(await map([{ at: 20, length: 10 }, { at: 30, length: 10 }], 10, 100), [
    { length: 10, flags: HOLE },
    { length: 20, flags: DATA },
    { length: 70, flags: HOLE },
  ]);
});

Deno.test("mapExtents() joins what it learned in several questions", async () => {
  const extents = await map([{ at: MIB / 2, length: 20 * MIB }], 0, 64 * MIB);
  assert.deepEqual(extents, [
    { length: MIB / 2, flags: HOLE },
    { length: 20 * MIB, flags: DATA },
    { length: 43.5 * MIB, flags: HOLE },
  ]);
});

Deno.test("mapExtents() stops at as many extents as are wanted, and asks for little more", async () => {
  const volume = volumeWith([{ at: 512, length: 512 }, { at: 2048, length: 90 * MIB }]);
  const one = await mapExtents({ volume, at: 0, length: 100 * MIB, most: 1 }, () => {});
  assert.deepEqual(one, [{ length: 512, flags: HOLE }]);
  assert.deepEqual(volume.asked, [{ at: 0, length: MIB }]);
});

Deno.test("mapExtents() answers for less than was asked rather than look for ever", async () => {
  const volume = volumeWith([]);
  const [extent, ...more] = await mapExtents(
    { volume, at: 0, length: 2 ** 50, most: 10 },
    () => {},
  );
  assert.equal(more.length, 0);
  assert.ok(volume.asked.length < 50);
  assert.ok(extent && extent.length >= 2 ** 32 && extent.length < 2 ** 50);
});

Deno.test("mapExtents() covers what was asked for without a gap, whatever the runs", async () => {
  const runs = fc.array(fc.tuple(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 1, max: 9 })), {
    maxLength: 20,
  });
  await fc.assert(
    fc.asyncProperty(
      runs,
      fc.nat(50),
      fc.integer({ min: 1, max: 99 }),
      async (gaps, at, length) => {
        let end = 0;
        const list = gaps.map(([gap, data]) => {
          const run = { at: end + gap, length: data };
          end = run.at + run.length;
          return run;
        });
        const extents = await map(list, at, length);
        assert.equal(extents.reduce((sum, extent) => sum + extent.length, 0), length);
        let position = at;
        for (const { length: bytes, flags } of extents) {
          assert.ok(bytes > 0);
          for (let byte = position; byte < position + bytes; byte++) {
            const isData = list.some((run) => byte >= run.at && byte < run.at + run.length);
            assert.equal(flags, isData ? DATA : HOLE);
          }
          position += bytes;
        }
      },
    ),
  );
});
