import assert from "node:assert/strict";
import { encodeChangeMapHeader } from "../../../src/codec/mod.ts";
import { ChangeMap, CHUNK_BYTES } from "../../../src/volume/mod.ts";
import { MemoryFiles } from "../../support/memory_files.ts";

const PATH = "m.map";
const SIZE = 100 * CHUNK_BYTES + 5;

async function withMap(body: (map: ChangeMap, files: MemoryFiles) => unknown): Promise<void> {
  const files = new MemoryFiles();
  const map = await ChangeMap.create(files, PATH, SIZE);
  await body(map, files);
  map.close();
  assert.equal(files.mapped, 0);
}

function dirtyChunks(map: ChangeMap): number[] {
  const chunks: number[] = [];
  for (let at = map.nextDirty(0); at >= 0; at = map.nextDirty(at + 1)) chunks.push(at);
  return chunks;
}

Deno.test({
  name: "ChangeMap marks every chunk that a write touches, once",
  fn: () =>
    withMap((map) => {
      assert.equal(map.chunks, 101);
      assert.equal(map.markDirty(CHUNK_BYTES - 1, 2), 2);
      assert.equal(map.markDirty(0, CHUNK_BYTES), 0);
      assert.equal(map.markDirty(SIZE - 1, 1), 1);
      assert.deepEqual(dirtyChunks(map), [0, 1, 100]);
      assert.equal(map.dirtyBytes, 3 * CHUNK_BYTES);
    }),
});

Deno.test({
  name: "ChangeMap beginCopy leaves the chunk unstable, so a reopened map has it dirty again",
  fn: () =>
    withMap((map, files) => {
      map.markDirty(3 * CHUNK_BYTES, CHUNK_BYTES);
      map.beginCopy(3 * CHUNK_BYTES, CHUNK_BYTES);
      assert.deepEqual(dirtyChunks(map), []);
      const reopened = ChangeMap.open(files, PATH);
      assert.deepEqual(dirtyChunks(reopened), [3]);
      reopened.close();
    }),
});

Deno.test({
  name: "ChangeMap forgets what was flushed, and only that",
  fn: () =>
    withMap((map, files) => {
      map.markUnstable(0, 1);
      map.beginFlush();
      map.markUnstable(CHUNK_BYTES, 1);
      map.flushed(true);
      const reopened = ChangeMap.open(files, PATH);
      assert.deepEqual(dirtyChunks(reopened), [1]);
      reopened.close();
    }),
});

Deno.test({
  name: "ChangeMap keeps what a failed flush left open",
  fn: () =>
    withMap((map) => {
      map.markUnstable(0, 1);
      map.beginFlush();
      map.flushed(false);
      map.beginFlush();
      map.flushed(false);
      map.unstableToDirty();
      assert.deepEqual(dirtyChunks(map), [0]);
    }),
});

Deno.test({
  name: "ChangeMap open refuses a damaged header and names the next step",
  fn: () =>
    withMap(async (_map, files) => {
      const bytes = files.read(PATH) ?? assert.fail("no map");
      bytes[0] = 0xff;
      await files.replace(PATH, bytes);
      assert.throws(() => ChangeMap.open(files, PATH), { code: "state/change-map" });
    }),
});

Deno.test({
  name: "ChangeMap open refuses a map that is cut short at any length",
  fn: () =>
    withMap(async (map, files) => {
      map.markDirty(0, SIZE);
      const whole = files.read(PATH) ?? assert.fail("no map");
      for (const length of [1, 19, 20, 4095, 4096, whole.length - 1]) {
        await files.replace(PATH, whole.subarray(0, length));
        assert.throws(() => ChangeMap.open(files, PATH), { code: "state/change-map" });
      }
    }),
});

Deno.test("ChangeMap from another boot doubts every chunk, and none beyond the last", async () => {
  const files = new MemoryFiles();
  (await ChangeMap.create(files, PATH, SIZE)).close();
  files.bootId = "second boot";
  const map = ChangeMap.open(files, PATH);
  assert.equal(map.dirtyChunks, map.chunks);
  assert.equal(map.doubtfulBytes, map.chunks * CHUNK_BYTES);
  assert.equal(dirtyChunks(map).at(-1), map.chunks - 1);
  map.beginCopy(0, SIZE);
  map.beginFlush();
  map.flushed(true);
  map.close();
  assert.equal(ChangeMap.open(files, PATH).dirtyChunks, 0);
});

Deno.test("ChangeMap from another boot doubts what it is told to, and knows the rest", async () => {
  const files = new MemoryFiles(), chunk = CHUNK_BYTES;
  const first = await ChangeMap.create(files, PATH, SIZE);
  first.markDirty(0, 1);
  first.markUnstable(2 * chunk, 1);
  files.bootId = "second boot";
  const map = ChangeMap.open(files, PATH, () => [{ at: 5 * chunk, length: 2 * chunk }]);
  const chunks = Array.from({ length: map.chunks }, (_, i) => i);
  assert.deepEqual(chunks.filter((one) => map.isDirty(one)), [0, 2, 5, 6]);
  assert.deepEqual(chunks.filter((one) => map.isDoubtful(one)), [5, 6]);
  assert.equal(ChangeMap.open(files, PATH).doubtfulBytes, 2 * chunk);
});

Deno.test("ChangeMap create can begin with every chunk doubtful", async () => {
  const map = await ChangeMap.create(new MemoryFiles(), PATH, SIZE, { doubtful: true });
  assert.deepEqual([map.dirtyChunks, dirtyChunks(map).at(-1)], [101, 100]);
});

Deno.test({
  name: "ChangeMap doubts what is dirty until it is written, copied or seen to be equal",
  fn: () =>
    withMap((map, files) => {
      map.markDoubtful(0, 40 * CHUNK_BYTES);
      map.markDirty(CHUNK_BYTES, 1);
      map.beginCopy(2 * CHUNK_BYTES, CHUNK_BYTES);
      map.markEqual(3 * CHUNK_BYTES, CHUNK_BYTES);
      assert.equal(map.doubtfulBytes, 37 * CHUNK_BYTES);
      assert.equal(map.dirtyChunks, 38);
      assert.deepEqual([0, 1, 2, 3, 4].map((chunk) => map.isDoubtful(chunk)), [
        true,
        false,
        false,
        false,
        true,
      ]);
      assert.deepEqual([map.nextDoubtful(1), map.nextDoubtful(39), map.nextDoubtful(40)], [
        4,
        39,
        -1,
      ]);
      const reopened = ChangeMap.open(files, PATH);
      assert.equal(reopened.doubtfulBytes, 37 * CHUNK_BYTES);
      // Whoever was not flushed is copied again, without a doubt.
      assert.equal(reopened.dirtyChunks, 40);
      reopened.forgetFrom(30);
      assert.equal(reopened.doubtfulBytes, 27 * CHUNK_BYTES);
      reopened.close();
    }),
});

Deno.test({
  name: "ChangeMap opens a file of version 1, and keeps its doubts in this process alone",
  fn: () =>
    withMap(async (map, files) => {
      map.markDirty(5 * CHUNK_BYTES, 1);
      const plane = 4096, whole = files.read(PATH) ?? assert.fail("no map");
      const first = whole.slice(0, whole.length - plane);
      first.set(
        encodeChangeMapHeader({
          version: 1,
          chunk_bytes: CHUNK_BYTES,
          chunks: map.chunks,
          boot_id: "another boot",
        }),
      );
      await files.replace(PATH, first);
      const old = ChangeMap.open(files, PATH);
      assert.deepEqual([old.dirtyChunks, old.doubtfulBytes], [101, 101 * CHUNK_BYTES]);
      old.close();
      const again = ChangeMap.open(files, PATH);
      assert.deepEqual([again.dirtyChunks, again.doubtfulBytes], [101, 0]);
      again.close();
    }),
});
