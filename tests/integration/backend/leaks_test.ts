/** What is opened is given back whole: descriptors, mappings, kinds of the ring, owners of operations. */
import assert from "node:assert/strict";
import { FileBackend } from "../../../src/backend/mod.ts";
import { Volume } from "../../../src/volume/mod.ts";
import { type InThread, inThread } from "../../support/in_thread.ts";
import { requires } from "../../support/requires.ts";
import { tempDir } from "../../support/temp.ts";

const TIMES = 10_000, AT_ONCE = 50;

/** What a thread holds of the kernel and of its own tables. */
function holdings({ reactor, operations }: InThread): Record<string, number> {
  const kind = reactor.ring.register(() => {}), owner = operations.registerOwner(() => {});
  reactor.ring.unregister(kind);
  operations.unregisterOwner(owner);
  return {
    kind,
    owner,
    descriptors: [...Deno.readDirSync("/proc/self/fd")].length,
    mappings: Deno.readTextFileSync("/proc/self/maps").split("\n").length,
    operations: operations.inUse,
    hooks: reactor.afterBatch.length,
  };
}

Deno.test({
  name: "ten thousand volumes on files, opened, used and closed, leave nothing behind",
  ...requires({ io_uring: true }),
  async fn() {
    using temp = tempDir();
    const path = temp.file("disk");
    await Deno.writeFile(path, new Uint8Array(1 << 20));
    await inThread(async (thread) => {
      const { calls, clock, operations, reactor, requests, turns } = thread;
      const once = async () => {
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
      const round = () => Promise.all(Array.from({ length: AT_ONCE }, once));
      for (let i = 0; i < 10; i++) await round();
      const before = holdings(thread);
      for (let i = 0; i < TIMES / AT_ONCE; i++) await round();
      const after = holdings(thread);
      const { mappings } = before;
      // V8's own heap comes and goes in mappings: a handful, never one for each volume.
      assert.ok((after["mappings"] ?? 0) < (mappings ?? 0) + 200, `${mappings}: ${after}`);
      // Kinds are used in turn, so that a late completion finds nobody: at most as many as were open at once.
      assert.ok((after["kind"] ?? 0) < AT_ONCE + 10);
      assert.ok((after["owner"] ?? 0) < 3 * AT_ONCE + 10);
      for (const what of ["descriptors", "operations", "hooks"]) {
        assert.ok((after[what] ?? 0) <= (before[what] ?? 0), what);
      }
    });
  },
});
