import assert from "node:assert/strict";
import { run } from "../../support/process.ts";
import { requires } from "../../support/requires.ts";
import { tempDir } from "../../support/temp.ts";
import { nbdCopy, startStoreProcess, uriOf } from "../../support/store_process.ts";

const MIB = 1 << 20;

/** A file system of `size_bytes`, unmounted again with the block. */
async function smallDisk(path: string, size_bytes: number): Promise<AsyncDisposable> {
  Deno.mkdirSync(path);
  await run("mount", ["-t", "tmpfs", "-o", `size=${size_bytes}`, "tmpfs", path]);
  return { [Symbol.asyncDispose]: async () => void await run("umount", [path]) };
}

Deno.test({
  name: "a full disk fails the writer and new volumes, keeps what was written, and heals",
  ...requires({
    io_uring: true,
    root: true,
    capabilities: ["CAP_SYS_ADMIN"],
    commands: ["nbdcopy", "mount", "umount"],
  }),
  async fn() {
    using temp = tempDir();
    await using _disk = await smallDisk(temp.file("disk"), 80 * MIB);
    await using server = await startStoreProcess({
      directories: [temp.file("disk/store")],
      listen: "127.0.0.1:0",
      nbd: `unix:${temp.file("nbd.sock")}`,
    });
    const { store } = server;
    const kept = await store.createVolume({ name: "kept", size_bytes: 4 * MIB });
    const large = await store.createVolume({ name: "large", size_bytes: 200 * MIB });
    Deno.writeFileSync(temp.file("small"), new Uint8Array(4 * MIB).fill(5));
    await nbdCopy(temp.file("small"), uriOf(kept));
    using zeros = Deno.openSync(temp.file("big"), { write: true, create: true });
    for (let mib = 0; mib < 100; mib++) zeros.writeSync(new Uint8Array(MIB).fill(6));
    await assert.rejects(nbdCopy(temp.file("big"), uriOf(large)), /[Nn]o space left/);
    await assert.rejects(store.createVolume({ name: "more", size_bytes: MIB }), {
      code: "store/full",
    });
    await nbdCopy(uriOf(kept), temp.file("out"));
    assert.deepEqual(Deno.readFileSync(temp.file("out")), Deno.readFileSync(temp.file("small")));
    assert.equal((await store.list()).length, 2);
    await store.delete("large");
    await store.createVolume({ name: "more", size_bytes: MIB });
  },
});
