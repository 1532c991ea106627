import assert from "node:assert/strict";
import { relative } from "node:path";
import { silentLog } from "../../../src/core/mod.ts";
import { type DataStore, openStore, type RequestMirror } from "../../../src/datastore/mod.ts";
import { tempDir } from "../../support/temp.ts";

const open = (path: string): DataStore =>
  openStore("local", { type: "embedded", path }, { log: silentLog });

const mirrorOf = (volume: string, more: Partial<RequestMirror> = {}): RequestMirror => ({
  source: { agent: "node-1", volume, size_bytes: 1 << 20, used_bytes: 4096 },
  predicted_need: { bytes: 1 << 21, level: 0.95, at: "2026-01-02T03:04:05Z" },
  size_bytes: 1 << 21,
  deadline: "2026-01-02T03:04:05Z",
  epoch: 1,
  idempotency_key: "key-1",
  ...more,
});

Deno.test("a volume is a thin file of the asked size, found again by another process", async () => {
  using temp = tempDir();
  const placement = await open(temp.file("volumes")).createVolume({
    name: "data",
    size_bytes: 10_000_000,
  });
  assert.deepEqual(placement, {
    store: "local",
    store_volume: "data",
    size_bytes: 10_002_432,
    backend: { type: "file", path: temp.file("volumes/data/data") },
  });
  assert.equal(Deno.statSync(temp.file("volumes/data/data")).size, 10_002_432);
  const again = await open(temp.file("volumes")).find("data");
  assert.deepEqual(again?.placement, placement);
  assert.equal(again?.allocated_bytes, 0);
});

Deno.test("a placement's path is absolute, however the store's was written", async () => {
  using temp = tempDir();
  const store = open(`${relative(Deno.cwd(), temp.path)}/volumes/`);
  const { backend } = await store.createVolume({ name: "data", size_bytes: 4096 });
  assert.deepEqual(backend, { type: "file", path: temp.file("volumes/data/data") });
});

Deno.test("resize() grows the file and refuses to shrink it", async () => {
  using temp = tempDir();
  const store = open(temp.path);
  await store.createVolume({ name: "data", size_bytes: 1 << 20 });
  assert.equal((await store.resize("data", 1 << 22)).size_bytes, 1 << 22);
  assert.equal((await store.resize("data", 1 << 22)).size_bytes, 1 << 22);
  await assert.rejects(store.resize("data", 1 << 20), { code: "usage/shrink" });
  assert.equal(Deno.statSync(temp.file("data/data")).size, 1 << 22);
  await assert.rejects(store.resize("other", 1 << 22), { code: "not-found/store-volume" });
});

Deno.test("delete() takes the bytes away and is no error the second time", async () => {
  using temp = tempDir();
  const store = open(temp.path);
  await store.createVolume({ name: "data", size_bytes: 1 << 20 });
  await store.delete("data");
  await store.delete("data");
  assert.equal(await store.find("data"), undefined);
  assert.deepEqual(await store.list(), []);
});

Deno.test("an id that a caller made up never becomes a path", async () => {
  using temp = tempDir();
  Deno.mkdirSync(temp.file("outside"));
  const store = open(temp.file("volumes"));
  await store.delete("../outside");
  assert.equal(await store.find("../outside"), undefined);
  assert.ok(Deno.statSync(temp.file("outside")).isDirectory);
  for (const name of ["../x", "a/b", ".hidden", "", "A", "a..b"]) {
    await assert.rejects(store.createVolume({ name, size_bytes: 4096 }), { code: "usage/name" });
  }
});

Deno.test("two creates at once with one key make one volume; without it the second is refused", async () => {
  using temp = tempDir();
  const one = open(temp.path), two = open(temp.path);
  const [first, second] = await Promise.all([
    one.requestMirror(mirrorOf("data")),
    two.requestMirror(mirrorOf("data")),
  ]);
  assert.deepEqual(first, second);
  assert.equal((await one.list()).length, 1);
  await one.createVolume({ name: "plain", size_bytes: 4096 });
  await assert.rejects(two.createVolume({ name: "plain", size_bytes: 4096 }), {
    code: "state/exists",
  });
});

Deno.test("promote() is durable and only rises", async () => {
  using temp = tempDir();
  const { placement } = await open(temp.path).requestMirror(mirrorOf("data"));
  await open(temp.path).promote(placement, 2);
  const after = await open(temp.path).find(placement.store_volume);
  assert.equal(after?.epoch, 2);
  assert.equal(after?.mirror_request?.state, "promoted");
  await open(temp.path).promote(placement, 2);
  await assert.rejects(open(temp.path).promote(placement, 1), { code: "fenced/stale-epoch" });
});

Deno.test("a mirror that could not even hold what is in use is refused with the numbers", async () => {
  using temp = tempDir();
  const store = open(temp.path);
  const source = { agent: "n", volume: "data", size_bytes: 2 ** 50, used_bytes: 2 ** 50 };
  await assert.rejects(store.requestMirror(mirrorOf("data", { source })), {
    code: "store/full",
    message: /1PiB is in use/,
  });
  assert.deepEqual(await store.list(), []);
});

Deno.test("digests are the data plane's business, and the store says so", async () => {
  using temp = tempDir();
  const store = open(temp.path);
  assert.equal(store.digests_at, "data-plane");
  const placement = await store.createVolume({ name: "data", size_bytes: 4096 });
  await assert.rejects(store.digests(placement, [{ at: 0, length: 4096 }]), {
    code: "state/digests-in-data-plane",
  });
});

Deno.test("capacity() tells the disk's room and what volumes take up", async () => {
  using temp = tempDir();
  const store = open(temp.path);
  const { store_volume } = await store.createVolume({ name: "data", size_bytes: 1 << 20 });
  using file = Deno.openSync(temp.file(`${store_volume}/data`), { write: true });
  file.writeSync(new Uint8Array(65_536).fill(7));
  file.syncSync();
  const { total_bytes, free_bytes, allocated_bytes } = await store.capacity();
  assert.equal(allocated_bytes, 65_536);
  assert.ok(total_bytes !== null && free_bytes !== null && total_bytes >= free_bytes);
});
