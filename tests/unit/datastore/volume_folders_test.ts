import assert from "node:assert/strict";
import { seededRng, silentLog, systemClock } from "../../../src/core/mod.ts";
import { VolumeFolders } from "../../../src/datastore/volume_folders.ts";
import { newVolumeRecord } from "../../../src/datastore/volume_record.ts";
import { tempDir } from "../../support/temp.ts";

const options = { log: silentLog, clock: systemClock, rng: seededRng(1) };
const record = (name: string, size_bytes = 1 << 20) =>
  newVolumeRecord({ name, size_bytes }, "2026-01-02T03:04:05.000Z");

Deno.test("create() makes a thin file and a record; remove() leaves nothing", async () => {
  using temp = tempDir();
  const folders = new VolumeFolders(temp.path, options);
  await folders.create(record("data", 1 << 30));
  assert.equal((await Deno.stat(folders.dataPath("data"))).size, 1 << 30);
  assert.equal(await folders.allocatedBytes("data"), 0);
  assert.deepEqual(await folders.list(), [record("data", 1 << 30)]);
  await folders.remove("data");
  assert.deepEqual([...Deno.readDirSync(temp.path)], []);
});

Deno.test("what a crash left over is never listed, and sweep() removes only that", async () => {
  using temp = tempDir();
  const folders = new VolumeFolders(temp.path, options);
  await folders.create(record("data"));
  // What a kill in the middle of create() and of remove() leaves, and a folder of someone else's.
  Deno.mkdirSync(temp.file(".psma-making-half-00"));
  Deno.writeTextFileSync(temp.file(".psma-making-half-00/data"), "");
  Deno.mkdirSync(temp.file(".psma-gone-old-00"));
  Deno.copyFileSync(temp.file("data/volume.json"), temp.file(".psma-gone-old-00/volume.json"));
  Deno.mkdirSync(temp.file("photos"));
  Deno.writeTextFileSync(temp.file("photos/cat.jpg"), "meow");
  assert.deepEqual((await folders.list()).map(({ id }) => id), ["data"]);
  await folders.sweep();
  const left = [...Deno.readDirSync(temp.path)].map(({ name }) => name).sort();
  assert.deepEqual(left, ["data", "photos"]);
  assert.equal(Deno.readTextFileSync(temp.file("photos/cat.jpg")), "meow");
});

Deno.test("create() refuses a name that is taken, even by a folder that is no volume", async () => {
  using temp = tempDir();
  const folders = new VolumeFolders(temp.path, options);
  Deno.mkdirSync(temp.file("photos"));
  await assert.rejects(folders.create(record("photos")), { code: "state/exists" });
  await folders.create(record("data"));
  await assert.rejects(folders.create(record("data", 4096)), { code: "state/exists" });
  assert.equal((await folders.read("data"))?.size_bytes, 1 << 20);
  assert.deepEqual([...Deno.readDirSync(temp.path)].map(({ name }) => name).sort(), [
    "data",
    "photos",
  ]);
});

Deno.test("create() refuses below the free floor, with the numbers", async () => {
  using temp = tempDir();
  const folders = new VolumeFolders(temp.path, { ...options, free_floor_bytes: 2 ** 60 });
  await assert.rejects(folders.create(record("data")), { code: "store/full", message: /1024PiB/ });
  assert.deepEqual([...Deno.readDirSync(temp.path)], []);
});

Deno.test("a damaged record leaves its volume alone and the others listed", async () => {
  using temp = tempDir();
  const folders = new VolumeFolders(temp.path, options);
  await folders.create(record("a"));
  await folders.create(record("b"));
  Deno.writeTextFileSync(temp.file("a/volume.json"), "{");
  assert.deepEqual((await folders.list()).map(({ id }) => id), ["b"]);
  assert.equal((await Deno.stat(folders.dataPath("a"))).size, 1 << 20);
});

Deno.test("lock() is held by one at a time and comes free", async () => {
  using temp = tempDir();
  const one = new VolumeFolders(temp.path, options), two = new VolumeFolders(temp.path, options);
  {
    using _lock = await one.lock(0);
    await assert.rejects(two.lock(0), { code: "state/locked" });
  }
  using _lock = await two.lock(0);
});
