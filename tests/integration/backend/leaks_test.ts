/** What is opened is given back whole: descriptors, mappings, kinds of the ring, owners of operations. */
import assert from "node:assert/strict";
import { FileBackend, openNbdBackend } from "../../../src/backend/mod.ts";
import { Volume } from "../../../src/volume/mod.ts";
import { type InThread, inThread, until } from "../../support/in_thread.ts";
import { nbdkit, uriOf } from "../../support/nbd_peers.ts";
import { requires } from "../../support/requires.ts";
import { tempDir } from "../../support/temp.ts";

const TIMES = 10_000, AT_ONCE = 50;
const DIRECT_TIMES = 4000;
const NBD_TIMES = 1000, NBD_AT_ONCE = 10;
/** What the runtime's own heap comes to while so much is opened: some 80 MiB, however often that is. */
const HEAP_BYTES = 128 << 20;

/** What a thread holds of the kernel and of its own tables. */
function holdings({ reactor, operations }: InThread): Record<string, number> {
  const kind = reactor.ring.register(() => {}), owner = operations.registerOwner(() => {});
  reactor.ring.unregister(kind);
  operations.unregisterOwner(owner);
  return {
    kind,
    owner,
    descriptors: [...Deno.readDirSync("/proc/self/fd")].length,
    mappedBytes: mappedBytes(),
    operations: operations.inUse,
    hooks: reactor.afterBatch.length,
  };
}

/** Anonymous memory that is readable and writable; neighbours may be one mapping, so bytes are counted. */
function mappedBytes(): number {
  let bytes = 0;
  for (const line of Deno.readTextFileSync("/proc/self/maps").split("\n")) {
    const [, from, to] = /^([0-9a-f]+)-([0-9a-f]+) rw-p 00000000 00:00 0 *$/.exec(line) ?? [];
    if (from && to) bytes += parseInt(to, 16) - parseInt(from, 16);
  }
  return bytes;
}

Deno.test({
  name: "ten thousand volumes on files, opened, used and closed, leave nothing behind",
  ...requires({ io_uring: true }),
  async fn() {
    using temp = tempDir();
    // A file has one user at a time.
    const paths = Array.from({ length: AT_ONCE }, (_, index) => temp.file(`disk${index}`));
    for (const path of paths) await Deno.writeFile(path, new Uint8Array(1 << 20));
    await inThread(async (thread) => {
      const { calls, clock, operations, reactor, requests, turns } = thread;
      const once = async (path: string) => {
        const active = new FileBackend({ path, reactor, operations });
        const sizeBytes = active.sizeBytes;
        const volume = new Volume({
          name: "v",
          sizeBytes,
          active,
          operations,
          requests,
          turns,
          clock,
        });
        assert.equal(await calls.flush(active), 0);
        await volume.close();
        await active.close();
      };
      const round = () => Promise.all(paths.map(once));
      for (let i = 0; i < 10; i++) await round();
      const before = holdings(thread);
      for (let i = 0; i < TIMES / AT_ONCE; i++) await round();
      const after = holdings(thread);
      const grown = (after["mappedBytes"] ?? 0) - (before["mappedBytes"] ?? 0);
      assert.ok(grown < HEAP_BYTES, `${grown} bytes more`);
      // Kinds are used in turn, so that a late completion finds nobody: at most as many as were open at once.
      assert.ok((after["kind"] ?? 0) < AT_ONCE + 10);
      assert.ok((after["owner"] ?? 0) < 3 * AT_ONCE + 10);
      for (const what of ["descriptors", "operations", "hooks"]) {
        assert.ok((after[what] ?? 0) <= (before[what] ?? 0), what);
      }
    });
  },
});

Deno.test({
  name: "files past the page cache, opened and closed thousands of times, leave no buffer behind",
  ...requires({ io_uring: true }),
  async fn() {
    using temp = tempDir();
    const path = temp.file("disk");
    await Deno.writeFile(path, new Uint8Array(1 << 20));
    await inThread(async (thread) => {
      const { calls, operations, reactor } = thread;
      const before = mappedBytes();
      for (let i = 0; i < DIRECT_TIMES; i++) {
        const backend = new FileBackend({ path, reactor, operations, direct: true });
        assert.equal(await calls.flush(backend), 0);
        await backend.close();
      }
      const grown = mappedBytes() - before;
      assert.ok(grown < HEAP_BYTES, `${grown} bytes more`);
    });
  },
});

Deno.test({
  name: "NBD backends on four connections, opened, used and closed, leave nothing behind",
  ...requires({ commands: ["nbdkit"], io_uring: true }),
  async fn() {
    using temp = tempDir();
    const uri = uriOf(temp.file("kit.sock"));
    await using _server = await nbdkit(temp.file("kit.sock"), ["memory", "1M"]);
    await inThread(async (thread) => {
      const { calls, operations, reactor } = thread;
      const once = async (_: unknown, i: number) => {
        const backend = await openNbdBackend({ uri, reactor, operations, connections: 4 });
        assert.equal(await calls.flush(backend), 0);
        assert.equal((await backend.dataExtents(0, backend.sizeBytes)).length, 0);
        // Some are closed while further connections are being made, some when they are lost.
        if (i % 3 === 1) await until(thread, () => backend.connections === 4, "connections");
        if (i % 3 === 2) backend.abort();
        await backend.close();
      };
      const failing = async () => {
        await assert.rejects(openNbdBackend({ uri: uriOf("/nowhere"), reactor, operations }));
      };
      const round = () =>
        Promise.all([...Array.from({ length: NBD_AT_ONCE }, once), ...Array.from([1, 2], failing)]);
      for (let i = 0; i < 5; i++) await round();
      const before = holdings(thread);
      for (let i = 0; i < NBD_TIMES / NBD_AT_ONCE; i++) await round();
      const after = holdings(thread);
      // Twenty kinds each, and a few of those that failed.
      assert.ok((after["kind"] ?? 0) < 30 * NBD_AT_ONCE, `kind ${after["kind"]}`);
      const grown = (after["mappedBytes"] ?? 0) - (before["mappedBytes"] ?? 0);
      assert.ok(grown < HEAP_BYTES, `${grown} bytes more`);
      for (const what of ["owner", "descriptors", "operations", "hooks"]) {
        assert.ok((after[what] ?? 0) <= (before[what] ?? 0), what);
      }
    });
  },
});
