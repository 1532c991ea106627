import { deepEqual, equal, throws } from "node:assert/strict";
import { UnverifiedMap } from "../../../src/volume/mod.ts";
import { MemoryFiles } from "../../support/memory_files.ts";

function marked(map: UnverifiedMap): number[] {
  const chunks: number[] = [];
  for (let chunk = map.next(0); chunk >= 0; chunk = map.next(chunk + 1)) chunks.push(chunk);
  return chunks;
}

Deno.test("UnverifiedMap counts each chunk once, and finds what is marked in order", () => {
  const map = UnverifiedMap.inMemory(70);
  for (const chunk of [69, 0, 31, 32, 31]) map.mark(chunk);
  equal(map.count, 4);
  deepEqual(marked(map), [0, 31, 32, 69]);
  map.clear(31);
  map.clear(31);
  deepEqual([map.count, map.has(31), map.has(32)], [3, false, true]);
});

Deno.test("UnverifiedMap is as it was after a kill, and says nothing after another boot", async () => {
  const files = new MemoryFiles();
  const map = await UnverifiedMap.create(files, "map", 100, { all: false });
  map.mark(5);
  deepEqual(marked(UnverifiedMap.open(files, "map", 100) as UnverifiedMap), [5]);
  equal(UnverifiedMap.open(files, "map", 101), undefined);
  files.bootId = "second boot";
  equal(UnverifiedMap.open(files, "map", 100), undefined);
});

Deno.test("UnverifiedMap of another boot holds, with what may be missing, what it held", async () => {
  const files = new MemoryFiles();
  const map = await UnverifiedMap.create(files, "map", 100, { all: false });
  map.mark(5);
  files.bootId = "second boot";
  deepEqual(marked(UnverifiedMap.open(files, "map", 100, [7, 8]) as UnverifiedMap), [5, 7, 8]);
  deepEqual(marked(UnverifiedMap.open(files, "map", 100) as UnverifiedMap), [5, 7, 8]);
});

Deno.test("UnverifiedMap can begin with every chunk, and none beyond the last", async () => {
  for (const chunks of [1, 31, 32, 33, 100]) {
    const map = await UnverifiedMap.create(new MemoryFiles(), "map", chunks, { all: true });
    equal(map.count, chunks);
    equal(marked(map).at(-1), chunks - 1);
  }
});

Deno.test("UnverifiedMap refuses a damaged header, and leaves no mapping", async () => {
  const files = new MemoryFiles();
  (await UnverifiedMap.create(files, "map", 8, { all: false })).close();
  const bytes = files.read("map") as Uint8Array;
  bytes[9] = 1;
  await files.replace("map", bytes);
  throws(() => UnverifiedMap.open(files, "map", 8), { code: "state/unverified-map" });
  equal(files.mapped, 0);
});
