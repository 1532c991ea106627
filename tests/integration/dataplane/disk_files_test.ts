/** A volume's own files on a real disk: durable replacement, shared mappings, and what is not there. */
import assert from "node:assert/strict";
import type { DiskFiles } from "../../../src/dataplane/disk_files.ts";
import { VolumeDirectory } from "../../../src/dataplane/volume_directory.ts";
import { ChangeMap, CHUNK_BYTES } from "../../../src/volume/mod.ts";
import { inThread } from "../../support/in_thread.ts";
import { requires } from "../../support/requires.ts";
import { type TempDir, tempDir } from "../../support/temp.ts";

const needs = requires({ io_uring: true });

async function withFiles(body: (files: DiskFiles, temp: TempDir) => unknown): Promise<void> {
  using temp = tempDir();
  await inThread(async ({ files }) => await body(files, temp));
}

Deno.test({
  name: "DiskFiles reads what it replaced, longer or shorter, and leaves nothing beside it",
  ...needs,
  fn: () =>
    withFiles(async (files, temp) => {
      const path = temp.file("f");
      for (const length of [10, 100_000, 1]) {
        const bytes = new Uint8Array(length).fill(length & 0xff);
        await files.replace(path, bytes);
        assert.deepEqual(files.read(path), bytes);
      }
      assert.deepEqual([...Deno.readDirSync(temp.path)].map(({ name }) => name), ["f"]);
    }),
});

Deno.test({
  name: "DiskFiles tells an absent file from an empty one, and removes what may be absent",
  ...needs,
  fn: () =>
    withFiles(async (files, temp) => {
      const path = temp.file("f");
      assert.equal(files.read(path), undefined);
      assert.throws(() => files.map(path), { code: "sys/errno-2" });
      Deno.writeFileSync(path, new Uint8Array(0));
      assert.throws(() => files.map(path), { code: "state/empty" });
      await files.remove(path);
      await files.remove(path);
      assert.equal(files.read(path), undefined);
    }),
});

Deno.test({
  name: "VolumeDirectory sweeps what a kill left of other mirrors, half made files among it",
  ...needs,
  fn: () =>
    withFiles(async (files, temp) => {
      const kept = ["lock", "m1.map", "m1.unverified", "manifest", "manifest.tmp", "verify"];
      const left = ["backup-3.map", "backup-3.unverified", "m0.map.tmp", "m1.unverified.tmp"];
      for (const name of [...kept, ...left]) Deno.writeTextFileSync(temp.file(name), "");
      await new VolumeDirectory(temp.path, files).removeOtherMaps("m1");
      assert.deepEqual([...Deno.readDirSync(temp.path)].map(({ name }) => name).sort(), kept);
    }),
});

Deno.test({
  name: "a change map in a mapped file is found again, exactly, without having been closed",
  ...needs,
  fn: () =>
    withFiles(async (files, temp) => {
      const path = temp.file("m.map");
      const first = await ChangeMap.create(files, path, 100_000 * CHUNK_BYTES);
      first.markDirty(77_777 * CHUNK_BYTES, 1);
      first.markUnstable(99_999 * CHUNK_BYTES, 1);
      const second = ChangeMap.open(files, path);
      assert.deepEqual([second.dirtyChunks, second.nextDirty(0), second.nextDirty(77_778)], [
        2,
        77_777,
        99_999,
      ]);
      second.close();
      first.close();
    }),
});

Deno.test({
  name: "DiskFiles syncs a mapped file, and writes blocks in place where nobody else does",
  ...needs,
  fn: () =>
    withFiles(async (files, temp) => {
      const path = temp.file("m.log");
      await files.replace(path, new Uint8Array(8192).fill(1));
      const mapped = files.map(path), blocks = files.openBlocks(path);
      await blocks.write(4096, new Uint8Array(4096).fill(2));
      assert.deepEqual([mapped.bytes[4095], mapped.bytes[4096], mapped.bytes[8191]], [1, 2, 2]);
      mapped.bytes[0] = 3;
      await mapped.sync();
      assert.equal(files.read(path)?.[0], 3);
      assert.throws(() => files.openBlocks(path), { code: "state/in-use" });
      blocks.close();
      files.openBlocks(path).close();
      mapped.close();
      mapped.close();
    }),
});
