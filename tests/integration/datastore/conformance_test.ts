/** What every data store promises, run over each of them; a new driver joins with one entry of STORES. */
import assert from "node:assert/strict";
import { silentLog } from "../../../src/core/mod.ts";
import {
  type DataStore,
  openStore,
  type RequestMirror,
  startStore,
} from "../../../src/datastore/mod.ts";
import { requires } from "../../support/requires.ts";
import { tempDir } from "../../support/temp.ts";

const MIB = 1 << 20;

interface Opened extends AsyncDisposable {
  readonly store: DataStore;
}

interface Case {
  readonly name: string;
  readonly needs: { ignore: boolean };
  open(): Promise<Opened>;
}

const served = (name: string, listen: (path: (name: string) => string) => string): Case => ({
  name,
  needs: requires({ io_uring: true }),
  async open() {
    await using starting = new AsyncDisposableStack();
    const temp = starting.use(tempDir());
    const server = await startStore({
      directories: [temp.file("one"), temp.file("two")],
      listen: listen(temp.file),
      nbd: `unix:${temp.file("nbd.sock")}`,
      log: silentLog,
    });
    starting.defer(() => server.stop());
    const { url, token_file } = server;
    const store = openStore("test", { type: "psma", url, token_file }, { log: silentLog });
    starting.defer(() => store.close());
    const running = starting.move();
    return { store, [Symbol.asyncDispose]: () => running.disposeAsync() };
  },
});

const STORES: readonly Case[] = [
  {
    name: "embedded",
    needs: { ignore: false },
    open() {
      const temp = tempDir();
      const config = { type: "embedded", path: temp.file("volumes") } as const;
      const store = openStore("test", config, { log: silentLog });
      return Promise.resolve({
        store,
        [Symbol.asyncDispose]: () => Promise.resolve(temp[Symbol.dispose]()),
      });
    },
  },
  served("psma over TCP", () => "127.0.0.1:0"),
  served("psma over a Unix socket", (path) => `unix:${path("http.sock")}`),
];

const mirrorOf = (volume: string, more: Partial<RequestMirror> = {}): RequestMirror => ({
  source: { agent: "node-1", volume, size_bytes: 2 * MIB, used_bytes: MIB },
  predicted_need: { bytes: 3 * MIB, level: 0.95, at: "2026-01-02T03:04:05Z" },
  size_bytes: 4 * MIB,
  deadline: "2026-01-02T03:04:05Z",
  epoch: 4,
  idempotency_key: "mirror-1",
  ...more,
});

const PROMISES: Readonly<Record<string, (store: DataStore) => Promise<void>>> = {
  async "a volume is found again with the placement that its making answered"(store) {
    const placement = await store.createVolume({ name: "data", size_bytes: 2 * MIB - 1 });
    assert.equal(placement.store, "test");
    assert.equal(placement.store_volume, "data");
    assert.equal(placement.size_bytes, 2 * MIB);
    assert.deepEqual((await store.find("data"))?.placement, placement);
    assert.equal(await store.find("none"), undefined);
  },
  async "the list is sorted and complete"(store) {
    for (const name of ["b", "a", "c"]) await store.createVolume({ name, size_bytes: MIB });
    const names = (await store.list()).map(({ placement }) => placement.store_volume);
    assert.deepEqual(names, ["a", "b", "c"]);
  },
  async "the same key makes one volume, another request with it is refused"(store) {
    const spec = { name: "data", size_bytes: MIB, idempotency_key: "k" };
    const [one, two] = await Promise.all([store.createVolume(spec), store.createVolume(spec)]);
    assert.deepEqual(one, two);
    await assert.rejects(store.createVolume({ ...spec, size_bytes: 2 * MIB }), {
      code: "state/idempotency-key",
    });
    await assert.rejects(store.createVolume({ name: "data", size_bytes: MIB }), {
      code: "state/exists",
    });
    assert.equal((await store.list()).length, 1);
  },
  async "a volume grows, does not shrink, and growing twice is no error"(store) {
    await store.createVolume({ name: "data", size_bytes: MIB });
    assert.equal((await store.resize("data", 3 * MIB)).size_bytes, 3 * MIB);
    assert.equal((await store.resize("data", 3 * MIB)).size_bytes, 3 * MIB);
    await assert.rejects(store.resize("data", MIB), { code: "usage/shrink" });
    await assert.rejects(store.resize("none", MIB), { code: "not-found/store-volume" });
    assert.equal((await store.find("data"))?.placement.size_bytes, 3 * MIB);
  },
  async "a mirror is granted, promoted once and for all, and deleted"(store) {
    const { id, placement, state } = await store.requestMirror(mirrorOf("data"));
    assert.equal(state, "granted");
    assert.equal(placement.size_bytes, 4 * MIB);
    assert.deepEqual((await store.requestMirror(mirrorOf("data"))).placement, placement);
    const before = await store.find(placement.store_volume);
    assert.deepEqual([before?.epoch, before?.mirror_request], [4, { id, state: "granted" }]);
    await store.promote(placement, 5);
    await store.promote(placement, 5);
    await assert.rejects(store.promote(placement, 4), { code: "fenced/stale-epoch" });
    const after = await store.find(placement.store_volume);
    assert.deepEqual([after?.epoch, after?.mirror_request], [5, { id, state: "promoted" }]);
    assert.deepEqual(after?.placement, placement);
    await store.delete(placement.store_volume);
    assert.deepEqual(await store.list(), []);
  },
  async "a mirror that is not wanted any more is deleted with its request"(store) {
    const { placement } = await store.requestMirror(mirrorOf("data"));
    await store.delete(placement.store_volume);
    await store.delete(placement.store_volume);
    assert.deepEqual(await store.list(), []);
    const again = await store.requestMirror(mirrorOf("data"));
    assert.notEqual(again.placement.store_volume, "data");
  },
  async "a mirror that could not hold what is in use is refused"(store) {
    const source = { agent: "n", volume: "data", size_bytes: 2 ** 50, used_bytes: 2 ** 50 };
    await assert.rejects(store.requestMirror(mirrorOf("data", { source })), { code: "store/full" });
    assert.deepEqual(await store.list(), []);
  },
  async "names that climb and sizes that are none are refused"(store) {
    for (const name of ["../x", "a/b", ".hidden", "", "A", "a..b", "a@1"]) {
      await assert.rejects(store.createVolume({ name, size_bytes: MIB }), { code: /^usage\// });
    }
    for (const size_bytes of [0, -1, 0.5, 2 ** 51]) {
      await assert.rejects(store.createVolume({ name: "x", size_bytes }), { code: /^usage\// });
    }
    await assert.rejects(store.resize("../x", MIB), { code: "not-found/store-volume" });
    assert.deepEqual(await store.list(), []);
  },
  async "capacity counts what is on disk"(store) {
    await store.createVolume({ name: "data", size_bytes: MIB });
    const { total_bytes, free_bytes, allocated_bytes } = await store.capacity();
    assert.ok(total_bytes !== null && free_bytes !== null && total_bytes >= free_bytes);
    assert.ok(allocated_bytes < MIB);
  },
  async "digests come from the store where it says so, and are refused where not"(store) {
    const placement = await store.createVolume({ name: "data", size_bytes: 2 * MIB });
    const extents = Array.from({ length: 1030 }, (_, i) => ({ at: i * 1024, length: 1024 }));
    if (store.digests_at === "data-plane") {
      await assert.rejects(store.digests(placement, extents), {
        code: "state/digests-in-data-plane",
      });
      return;
    }
    const digests = await store.digests(placement, extents);
    assert.equal(digests.length, 1030);
    assert.equal(new Set(digests).size, 1);
    await assert.rejects(store.digests(placement, [{ at: 2 * MIB, length: 1 }]), {
      code: "usage/extent",
    });
  },
};

for (const { name, needs, open } of STORES) {
  for (const [promise, check] of Object.entries(PROMISES)) {
    Deno.test({
      name: `${name}: ${promise}`,
      ...needs,
      async fn() {
        await using opened = await open();
        await check(opened.store);
      },
    });
  }
}
