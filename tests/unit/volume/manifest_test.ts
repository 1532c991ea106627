import assert from "node:assert/strict";
import { PsmaError } from "../../../src/core/mod.ts";
import { type Manifest, ManifestFile } from "../../../src/volume/mod.ts";
import { MemoryFiles } from "../../support/memory_files.ts";

const PATH = "manifest";
const FIRST: Manifest = {
  name: "data",
  size_bytes: 4096,
  epoch: 1,
  active: {
    store: "local",
    store_volume: "v0",
    size_bytes: 4096,
    backend: { type: "file", path: "/v0" },
  },
  mirror: null,
  prepare: null,
  backup: null,
  backup_mode: "frozen",
  backup_rest: null,
  last_cutover: null,
};

/** Fails replacements while `broken`. */
class BrokenFiles extends MemoryFiles {
  broken = false;

  override replace(path: string, bytes: Uint8Array): Promise<void> {
    return this.broken ? Promise.reject(new Error("disk full")) : super.replace(path, bytes);
  }
}

const nextEpoch = (now: Manifest): Manifest => ({ ...now, epoch: now.epoch + 1 });

Deno.test("ManifestFile.load() finds nothing, what was created, and every commit after it", async () => {
  const files = new MemoryFiles();
  assert.equal(await ManifestFile.load(files, PATH), undefined);
  const made = await ManifestFile.create(files, PATH, FIRST);
  assert.deepEqual((await ManifestFile.load(files, PATH))?.current, FIRST);
  await made.commit(nextEpoch);
  assert.equal((await ManifestFile.load(files, PATH))?.current.epoch, 2);
});

Deno.test("ManifestFile.commit() applies changes one after another, each to the last one's outcome", async () => {
  const files = new MemoryFiles();
  const manifest = await ManifestFile.create(files, PATH, FIRST);
  await Promise.all(Array.from({ length: 10 }, () => manifest.commit(nextEpoch)));
  assert.equal(manifest.current.epoch, 11);
});

Deno.test("ManifestFile.commit() that fails changes nothing here, and the next one goes on", async () => {
  const files = new BrokenFiles();
  const manifest = await ManifestFile.create(files, PATH, FIRST);
  files.broken = true;
  await assert.rejects(manifest.commit(nextEpoch), /disk full/);
  assert.equal(manifest.current.epoch, 1);
  files.broken = false;
  await manifest.commit(nextEpoch);
  assert.equal((await ManifestFile.load(files, PATH))?.current.epoch, 2);
});

Deno.test("ManifestFile.load() refuses a manifest with a flipped bit or a missing end", async () => {
  const files = new MemoryFiles();
  await ManifestFile.create(files, PATH, FIRST);
  const whole = files.read(PATH) ?? assert.fail("no manifest");
  for (const length of [0, 1, 20, whole.length - 1]) {
    await files.replace(PATH, whole.subarray(0, length));
    await assert.rejects(ManifestFile.load(files, PATH), { code: "state/manifest" });
  }
  const flipped = whole.slice();
  flipped[40] = (flipped[40] as number) ^ 1;
  await files.replace(PATH, flipped);
  await assert.rejects(ManifestFile.load(files, PATH), { code: "state/manifest" });
});

Deno.test("ManifestFile.load() believes only what is durable under its name", async () => {
  const files = new MemoryFiles();
  await ManifestFile.create(files, PATH, FIRST);
  const order: string[] = [];
  files.settle = () => {
    order.push("settled");
    return Promise.reject(new PsmaError("sys/io", "Cannot sync"));
  };
  await assert.rejects(ManifestFile.load(files, PATH), { code: "sys/io" });
  assert.deepEqual(order, ["settled"]);
});
