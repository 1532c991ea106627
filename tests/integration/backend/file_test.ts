/** The file backend on file systems that are full, or lack what it would like to use. */
import assert from "node:assert/strict";
import {
  FileBackend,
  type FileBackendOptions,
  OPERATION,
  OPERATION_FLAG,
} from "../../../src/backend/mod.ts";
import { sparseFile } from "../../support/attached_loop.ts";
import { BackendIo } from "../../support/backend_io.ts";
import { type InThread, inThread } from "../../support/in_thread.ts";
import { run } from "../../support/process.ts";
import { requires } from "../../support/requires.ts";
import { tempDir } from "../../support/temp.ts";

const MIB = 1 << 20, ENOSPC = 28, EOPNOTSUPP = 95, ESHUTDOWN = 108;
const mounts = requires({ root: true, io_uring: true, commands: ["mount"] });

/** A folder on a file system of its own, until the block ends. */
async function mounted(type: string, options: string): Promise<{ path: string } & AsyncDisposable> {
  const temp = tempDir();
  await run("mount", ["-t", type, "-o", options, "none", temp.path]);
  return {
    path: temp.path,
    async [Symbol.asyncDispose]() {
      await run("umount", [temp.path]);
      temp[Symbol.dispose]();
    },
  };
}

async function withFile(
  { path, direct = false }: Pick<FileBackendOptions, "path" | "direct">,
  use: (io: BackendIo, thread: InThread) => Promise<void>,
): Promise<void> {
  await inThread(async (thread) => {
    const backend = new FileBackend({ path, direct, ...thread });
    try {
      await use(new BackendIo(thread, backend), thread);
    } finally {
      await backend.close();
    }
  });
}

Deno.test({
  name: "a full file system is ENOSPC, counted, and over when there is room again",
  ...mounts,
  async fn() {
    await using small = await mounted("tmpfs", "size=2m");
    for (const direct of [false, true]) {
      const path = sparseFile(`${small.path}/data`, 8 * MIB);
      await withFile({ path, direct }, async (io) => {
        const bytes = new Uint8Array(MIB).fill(1);
        await io.write({ at: 0 }, bytes);
        await io.write({ at: MIB }, bytes);
        assert.equal(await io.tryWrite({ at: 2 * MIB }, bytes), ENOSPC);
        await io.zero("trim", { at: 0, length: MIB });
        await io.write({ at: 2 * MIB }, bytes);
        assert.equal((await io.read({ at: 3 * MIB - 1 }, 1))[0], 1);
        const writes = io.backend.meter.report().find(({ operation }) => operation === "write");
        assert.deepEqual([writes?.count, writes?.errors, writes?.bytes], [4, 1, 3 * MIB]);
      });
      Deno.removeSync(path);
    }
  },
});

Deno.test({
  name: "where ranges can neither be punched nor zeroed, zeros are written, but no fast ones",
  ...mounts,
  async fn() {
    await using ram = await mounted("ramfs", "mode=700");
    await withFile({ path: sparseFile(`${ram.path}/data`, 4 * MIB) }, async (io) => {
      const { fua, noHole, fastZero } = OPERATION_FLAG;
      for (const flags of [0, fua, noHole]) {
        await io.write({ at: 0 }, new Uint8Array(3 * MIB).fill(7));
        await io.zero("writeZeroes", { at: 5, length: 2 * MIB, flags });
        const found = await io.read({ at: 0 }, 3 * MIB);
        assert.ok(found.subarray(5, 2 * MIB + 5).every((byte) => byte === 0));
        assert.deepEqual([found[4], found[2 * MIB + 5]], [7, 7]);
      }
      const fast = { at: 0, length: 4096, flags: fastZero };
      assert.equal(await io.tryZero("writeZeroes", fast), EOPNOTSUPP);
      assert.equal((await io.read({ at: 0 }, 1))[0], 7);
    });
  },
});

Deno.test({
  name: "direct I/O is refused in a sentence where it cannot be",
  ...mounts,
  async fn() {
    await using ram = await mounted("ramfs", "mode=700");
    const path = sparseFile(`${ram.path}/data`, MIB);
    await inThread((thread) => {
      assert.throws(() => new FileBackend({ path, direct: true, ...thread }), {
        code: "state/direct",
        message: /without the page cache: its file system does not support it/,
      });
      return Promise.resolve();
    });
    await withFile({ path }, async (io) => void await io.read({ at: 0 }, 1));
  },
});

Deno.test({
  name: "direct I/O is refused on a file whose length is no whole number of blocks",
  ...requires({ io_uring: true }),
  async fn() {
    using temp = tempDir();
    const path = sparseFile(temp.file("odd"), MIB + 100);
    await inThread(async (thread) => {
      const open = () => new FileBackend({ path, direct: true, ...thread });
      assert.throws(open, { code: "state/direct", message: /bytes are no multiple of/ });
      Deno.truncateSync(path, 2 * MIB);
      const backend = open();
      await backend.grow(3 * MIB + 1);
      assert.ok(backend.sizeBytes > 3 * MIB && backend.sizeBytes % 512 === 0);
      assert.equal(Deno.statSync(path).size, backend.sizeBytes);
      await backend.close();
    });
  },
});

Deno.test({
  name: "a trim gives blocks back, and zeros that may leave no hole keep them",
  ...requires({ io_uring: true }),
  async fn() {
    using temp = tempDir();
    await withFile({ path: sparseFile(temp.file("data"), 8 * MIB) }, async (io) => {
      await io.write({ at: 0 }, new Uint8Array(4 * MIB).fill(1));
      await io.flush();
      const full = io.backend.allocatedBytes() ?? 0;
      assert.ok(full >= 4 * MIB);
      const { noHole } = OPERATION_FLAG;
      await io.zero("writeZeroes", { at: 0, length: MIB, flags: noHole });
      assert.ok((io.backend.allocatedBytes() ?? 0) >= full);
      await io.zero("trim", { at: MIB, length: 2 * MIB });
      assert.ok((io.backend.allocatedBytes() ?? full) <= full - 2 * MIB);
    });
  },
});

Deno.test({
  name: "direct I/O has its file alone, and again when the other has closed it",
  ...requires({ io_uring: true }),
  async fn() {
    using temp = tempDir();
    const path = sparseFile(temp.file("data"), MIB);
    await inThread(async (thread) => {
      const open = () => new FileBackend({ path, direct: true, ...thread });
      for (let i = 0; i < 50; i++) {
        const first = open();
        assert.throws(open, {
          code: "state/in-use",
          message: new RegExp(`process ${Deno.pid} uses it`),
        });
        await new BackendIo(thread, first).write({ at: 0 }, new Uint8Array(65_536).fill(i));
        await first.close();
      }
      await open().close();
    });
  },
});

Deno.test({
  name: "data of a file in memory that was found before is a hole again once it was punched",
  ...mounts,
  async fn() {
    await using small = await mounted("tmpfs", "size=8m");
    await withFile({ path: sparseFile(`${small.path}/data`, 8 * MIB) }, async (io) => {
      const listed = async (at: number, length: number) =>
        (await io.backend.dataExtents(at, length)).map((one) => [one.at / MIB, one.length / MIB]);
      await io.write({ at: MIB }, new Uint8Array(MIB).fill(1));
      await io.write({ at: 2 * MIB }, new Uint8Array(MIB).fill(1));
      assert.deepEqual(await listed(0, 8 * MIB), [[1, 2]]);
      assert.deepEqual(await listed(MIB, 8 * MIB - MIB), [[1, 2]]);
      await io.write({ at: 5 * MIB }, new Uint8Array(MIB).fill(1));
      assert.deepEqual(await listed(2 * MIB, 6 * MIB), [[2, 1], [5, 1]]);
      await io.zero("trim", { at: 2 * MIB, length: MIB });
      assert.deepEqual(await listed(0, 8 * MIB), [[1, 1], [5, 1]]);
    });
  },
});

Deno.test({
  name: "what is asked of a file that is closed fails, and reaches no file that has its place now",
  ...requires({ io_uring: true }),
  async fn() {
    using temp = tempDir();
    const open = (name: string) => sparseFile(temp.file(name), MIB);
    await inThread(async (thread) => {
      const closed = new FileBackend({ path: open("closed"), ...thread });
      const { calls, memory } = thread, buffer = memory.allocate(4096);
      buffer.bytes.fill(7);
      await closed.close();
      const other = new FileBackend({ path: open("other"), ...thread });
      for (const code of Object.values(OPERATION)) {
        const range = { at: 0, length: 4096, address: buffer.address };
        assert.equal(await calls.run(closed, code, range), ESHUTDOWN);
      }
      await assert.rejects(closed.dataExtents(0, MIB), { code: "state/closed" });
      assert.deepEqual(await other.dataExtents(0, MIB), []);
      await other.close();
      memory.release(buffer);
    });
  },
});
