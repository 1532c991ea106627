import assert from "node:assert/strict";
import { ChangeMap, CHUNK_BYTES } from "../../../src/volume/mod.ts";
import { inThread } from "../../support/in_thread.ts";
import { requires } from "../../support/requires.ts";
import { tempDir } from "../../support/temp.ts";

const needs = requires({ io_uring: true });
const SIZE = 100 * CHUNK_BYTES + 5;

async function withMap(body: (map: ChangeMap, path: string) => void): Promise<void> {
  using temp = tempDir();
  const path = temp.file("m.map");
  const map = await inThread(({ reactor }) => ChangeMap.create(path, SIZE, reactor));
  try {
    body(map, path);
  } finally {
    map.close();
  }
}

function dirtyChunks(map: ChangeMap): number[] {
  const chunks: number[] = [];
  for (let at = map.nextDirty(0); at >= 0; at = map.nextDirty(at + 1)) chunks.push(at);
  return chunks;
}

Deno.test({
  name: "ChangeMap marks every chunk that a write touches, once",
  ...needs,
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
  ...needs,
  fn: () =>
    withMap((map, path) => {
      map.markDirty(3 * CHUNK_BYTES, CHUNK_BYTES);
      map.beginCopy(3 * CHUNK_BYTES, CHUNK_BYTES);
      assert.deepEqual(dirtyChunks(map), []);
      const reopened = ChangeMap.open(path);
      assert.deepEqual(dirtyChunks(reopened), [3]);
      reopened.close();
    }),
});

Deno.test({
  name: "ChangeMap forgets what was flushed, and only that",
  ...needs,
  fn: () =>
    withMap((map, path) => {
      map.markUnstable(0, 1);
      map.beginFlush();
      map.markUnstable(CHUNK_BYTES, 1);
      map.flushed(true);
      const reopened = ChangeMap.open(path);
      assert.deepEqual(dirtyChunks(reopened), [1]);
      reopened.close();
    }),
});

Deno.test({
  name: "ChangeMap keeps what a failed flush left open",
  ...needs,
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
  ...needs,
  fn: () =>
    withMap((_map, path) => {
      const file = Deno.openSync(path, { write: true });
      file.writeSync(new Uint8Array([0xff]));
      file.close();
      assert.throws(() => ChangeMap.open(path), { code: "state/change-map" });
    }),
});
