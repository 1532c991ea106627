import assert from "node:assert/strict";
import { run } from "../../support/process.ts";
import { requires } from "../../support/requires.ts";
import { tempDir } from "../../support/temp.ts";
import {
  nbdCopy,
  nbdInfo,
  readOnlyUri,
  startStoreProcess,
  uriOf,
} from "../../support/store_process.ts";

const MIB = 1 << 20;
const needs = requires({ io_uring: true, commands: ["nbdinfo", "nbdcopy", "qemu-io"] });

/** Bytes that differ from block to block. */
function pattern(length: number, seed: number): Uint8Array {
  const words = new Uint32Array(length / 4);
  let state = seed;
  for (let i = 0; i < words.length; i++) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    words[i] = state;
  }
  return new Uint8Array(words.buffer);
}

const mirror = {
  source: { agent: "node-1", volume: "data", size_bytes: 4 * MIB, used_bytes: MIB },
  predicted_need: { bytes: 6 * MIB, level: 0.95, at: "2026-01-02T03:04:05Z" },
  size_bytes: 8 * MIB,
  deadline: "2026-01-02T03:04:05Z",
  epoch: 1,
  idempotency_key: "mirror-1",
};

for (const transport of ["tcp", "unix"] as const) {
  Deno.test({
    name: `NBD tools write to a volume by its URI over ${transport} and read the same bytes`,
    ...needs,
    async fn() {
      using temp = tempDir();
      await using server = await startStoreProcess({
        directories: [temp.file("store")],
        listen: "127.0.0.1:0",
        nbd: transport === "tcp" ? "127.0.0.1:0" : `unix:${temp.file("nbd.sock")}`,
      });
      const { store } = server;
      const placement = await store.createVolume({ name: "data", size_bytes: 8 * MIB });
      const uri = uriOf(placement);
      const writer = await nbdInfo(uri), reader = await nbdInfo(readOnlyUri(uri));
      assert.deepEqual([writer["export-size"], writer.is_read_only], [8 * MIB, false]);
      assert.deepEqual([reader["export-size"], reader.is_read_only], [8 * MIB, true]);

      Deno.writeFileSync(temp.file("in"), pattern(8 * MIB, 1));
      await nbdCopy(temp.file("in"), uri);
      await nbdCopy(readOnlyUri(uri), temp.file("out"));
      assert.deepEqual(Deno.readFileSync(temp.file("out")), Deno.readFileSync(temp.file("in")));
      assert.equal((await store.find("data"))?.allocated_bytes, 8 * MIB);

      const halves = [{ at: 0, length: MIB }, { at: 4 * MIB, length: MIB }];
      const before = await store.digests(placement, halves);
      await run("qemu-io", ["-f", "raw", "-c", "write -P 9 4M 4k", "-c", "flush", uri]);
      const after = await store.digests(placement, halves);
      assert.equal(after[0], before[0]);
      assert.notEqual(after[1], before[1]);

      const grown = await store.resize("data", 16 * MIB);
      assert.equal((await nbdInfo(uriOf(grown)))["export-size"], 16 * MIB);
      await store.delete("data");
      await assert.rejects(nbdInfo(uri), /nbdinfo/);
    },
  });
}

Deno.test({
  name: "after a promotion an older writer is refused, and the mirror's own goes on",
  ...needs,
  async fn() {
    using temp = tempDir();
    await using server = await startStoreProcess({
      directories: [temp.file("store")],
      listen: "127.0.0.1:0",
      nbd: `unix:${temp.file("nbd.sock")}`,
    });
    const { store } = server;
    const { placement } = await store.requestMirror(mirror);
    const uri = uriOf(placement);
    assert.match(uri, /@2\?/);
    const write = (uri: string, exit = 0) =>
      run("qemu-io", ["-f", "raw", "-c", "write -P 9 0 4k", uri], { exit });
    await write(uri);
    await store.promote(placement, 2);
    await write(uri);
    await write(uri.replace("@2", "@1"), 1);
    await store.promote(placement, 3);
    await write(uri, 1);
    await write(uriOf((await store.find(placement.store_volume))?.placement ?? placement));
  },
});

Deno.test({
  name: "kill -9 and restart keep volumes, bytes, exports, requests and epochs",
  ...needs,
  async fn() {
    using temp = tempDir();
    const options = {
      directories: [temp.file("one"), temp.file("two")],
      listen: `unix:${temp.file("http.sock")}`,
      nbd: `unix:${temp.file("nbd.sock")}`,
    };
    Deno.writeFileSync(temp.file("in"), pattern(4 * MIB, 2));
    let listed, granted, old;
    {
      await using server = await startStoreProcess(options);
      const { store } = server;
      old = uriOf(await store.createVolume({ name: "plain", size_bytes: 4 * MIB }));
      granted = await store.requestMirror(mirror);
      await nbdCopy(temp.file("in"), old);
      const plain = await store.find("plain");
      assert.ok(plain);
      await store.promote(plain.placement, 7);
      listed = await store.list();
      await server.kill();
    }
    await using server = await startStoreProcess(options);
    const { store } = server;
    // First of all: a writer with the epoch has not been here yet, only the record knows it.
    await assert.rejects(nbdInfo(old), /fenced|nbdinfo/);
    assert.deepEqual(await store.list(), listed);
    assert.deepEqual(await store.requestMirror(mirror), granted);
    const plain = listed.find(({ placement }) => placement.store_volume === "plain");
    assert.ok(plain);
    await nbdCopy(uriOf(plain.placement), temp.file("out"));
    assert.deepEqual(Deno.readFileSync(temp.file("out")), Deno.readFileSync(temp.file("in")));
    await assert.rejects(store.promote(plain.placement, 6), { code: "fenced/stale-epoch" });
  },
});

Deno.test({
  name: "kill -9 amid creates and deletes: what was answered holds, nothing half made is served",
  ...needs,
  async fn() {
    using temp = tempDir();
    const options = {
      directories: [temp.file("store")],
      listen: `unix:${temp.file("http.sock")}`,
      nbd: `unix:${temp.file("nbd.sock")}`,
    };
    const made = new Set<string>(), deleted = new Set<string>();
    for (let round = 0; round < 6; round++) {
      await using server = await startStoreProcess(options);
      const { store } = server;
      const there = new Set((await store.list()).map(({ placement }) => placement.store_volume));
      for (const name of made) assert.ok(there.has(name), `${name} was answered for`);
      for (const name of deleted) assert.ok(!there.has(name), `${name} was deleted`);
      for (const name of there) {
        assert.equal(
          (await nbdInfo(uriOf((await need(store.find(name))).placement)))["export-size"],
          MIB,
        );
      }
      for (const { name, isDirectory } of Deno.readDirSync(temp.file("store"))) {
        if (!isDirectory) continue;
        assert.ok(there.has(name), `${name} is no leftover`);
        const inside = [...Deno.readDirSync(temp.file(`store/${name}`))];
        assert.deepEqual(inside.map(({ name }) => name).sort(), ["data", "plane", "volume.json"]);
      }
      // Lanes are each at another step of their work when the process dies at the nth answer.
      const { promise: enough, resolve } = Promise.withResolvers<void>();
      let answers = 0;
      const counted = () => ++answers > 12 + round && resolve();
      const creates = Array.from({ length: 6 }, async (_, lane) => {
        for (let i = 0; i < 12; i++) {
          const name = `v${round}-${lane}-${i}`;
          await store.createVolume({ name, size_bytes: MIB });
          made.add(name);
          counted();
        }
      });
      const deletes = [...made].slice(0, 6).map(async (name) => {
        made.delete(name);
        await store.delete(name);
        deleted.add(name);
        counted();
      });
      await enough;
      await server.kill();
      await Promise.allSettled([...creates, ...deletes]);
    }
    assert.ok(made.size > 0 && deleted.size > 0);
  },
});

Deno.test({
  name: "a second server on the same directory is refused and the first goes on",
  ...needs,
  async fn() {
    using temp = tempDir();
    const directories = [temp.file("store")];
    const nbd = (name: string) => `unix:${temp.file(name)}`;
    await using first = await startStoreProcess({
      directories,
      listen: "127.0.0.1:0",
      nbd: nbd("a"),
    });
    await assert.rejects(
      startStoreProcess({ directories, listen: "127.0.0.1:0", nbd: nbd("b") }),
      /state\/locked|another process serves it/,
    );
    await first.store.createVolume({ name: "data", size_bytes: MIB });
  },
});

async function need<T>(value: Promise<T | undefined>): Promise<T> {
  const there = await value;
  assert.ok(there !== undefined);
  return there;
}
