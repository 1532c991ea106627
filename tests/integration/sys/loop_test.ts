/** Loop devices on ordinary files: no data plane is needed to see what the kernel makes of them. */
import { deepStrictEqual, equal, ok, rejects } from "node:assert/strict";
import { attachedLoop, sparseFile } from "../../support/attached_loop.ts";
import { run } from "../../support/process.ts";
import { requires } from "../../support/requires.ts";
import { tempDir } from "../../support/temp.ts";
import {
  attachLoop,
  detachLoop,
  deviceBytes,
  findLoops,
  growLoop,
  sectorBytesOf,
} from "../../../src/sys/mod.ts";

const MIB = 1 << 20;
const needs = requires({ root: true, loop: true });

Deno.test({
  name: "attach makes a device of the file's size that the file's path finds, detach ends it",
  ...needs,
  async fn() {
    using temp = tempDir();
    const path = sparseFile(temp.file("image"), 8 * MIB);
    let device: string;
    {
      await using loop = await attachedLoop({ path });
      device = loop.device;
      equal(deviceBytes(device), 8 * MIB);
      deepStrictEqual(await findLoops(path), [device]);
      deepStrictEqual(await findLoops(temp.file("other")), []);
    }
    deepStrictEqual(await findLoops(path), []);
    equal(await detachLoop(device), true, "detaching again is no error");
  },
});

Deno.test({
  name: "a device is found through a link, under a long path, and after its file has gone",
  ...needs,
  async fn() {
    using temp = tempDir();
    const folder = temp.file("a-rather-long-name-".repeat(6));
    Deno.mkdirSync(folder);
    Deno.symlinkSync(folder, temp.file("link"));
    const path = sparseFile(`${folder}/image`, MIB);
    await using loop = await attachedLoop({ path: `${temp.file("link")}/image` });
    deepStrictEqual(await findLoops(path), [loop.device]);
    deepStrictEqual(await findLoops(`${temp.file("link")}/image`), [loop.device]);
    Deno.removeSync(path);
    deepStrictEqual(await findLoops(path), [loop.device]);
  },
});

Deno.test({
  name: "grow takes the file's new size, and again its old one",
  ...needs,
  async fn() {
    using temp = tempDir();
    const path = sparseFile(temp.file("image"), 8 * MIB);
    await using loop = await attachedLoop({ path });
    for (const size of [16 * MIB, 16 * MIB, 24 * MIB + 512, 8 * MIB]) {
      Deno.truncateSync(path, size);
      equal(await growLoop(loop.device, path), size);
      equal(deviceBytes(loop.device), size);
    }
  },
});

Deno.test({
  name: "many attachments at once each get a device of their own",
  ...needs,
  async fn() {
    using temp = tempDir();
    await using undo = new AsyncDisposableStack();
    const loops = await Promise.all(
      Array.from(
        { length: 12 },
        (_, i) => attachedLoop({ path: sparseFile(temp.file(`${i}`), MIB) }),
      ),
    );
    for (const loop of loops) undo.use(loop);
    equal(new Set(loops.map(({ device }) => device)).size, 12);
  },
});

Deno.test({
  name: "a device that is in use goes when its last user does",
  ...needs,
  async fn() {
    using temp = tempDir();
    const path = sparseFile(temp.file("image"), MIB);
    await using loop = await attachedLoop({ path });
    const user = await Deno.open(loop.device);
    equal(await detachLoop(loop.device), false);
    deepStrictEqual(await findLoops(path), [loop.device]);
    user.close();
    deepStrictEqual(await findLoops(path), []);
  },
});

Deno.test({
  name: "a read-only attachment cannot be written to; one without direct I/O says so",
  ...needs,
  async fn() {
    using temp = tempDir();
    const path = sparseFile(temp.file("image"), MIB);
    await using loop = await attachedLoop({ path, readOnly: true, directIo: false });
    equal(loop.directIo, false);
    await rejects(
      Deno.writeFile(loop.device, new Uint8Array(512), { create: false }),
      /permitted|Read-only/,
    );
  },
});

Deno.test({
  name: "the block size follows the contents: what was made for small sectors keeps them",
  ...requires({ root: true, loop: true, commands: ["mkfs.xfs", "mkfs.ext4", "mkfs.btrfs"] }),
  async fn() {
    using temp = tempDir();
    const image = (name: string) => sparseFile(temp.file(name), 320 * MIB);
    equal(await sectorBytesOf(image("blank")), 4096);
    const made = async (tool: string, ...args: string[]) => {
      const path = image(`${tool}${args.length}`);
      await run(tool, [...args, path]);
      return await sectorBytesOf(path);
    };
    equal(await made("mkfs.xfs", "-q", "-s", "size=512"), 512);
    equal(await made("mkfs.xfs", "-q", "-s", "size=4096", "-K"), 4096);
    equal(await made("mkfs.ext4", "-q", "-b", "1024"), 1024);
    equal(await made("mkfs.ext4", "-q", "-b", "4096", "-F"), 4096);
    equal(await made("mkfs.btrfs", "-q"), 4096);
    const table = image("table");
    using file = Deno.openSync(table, { write: true });
    file.seekSync(510, Deno.SeekMode.Start);
    file.writeSync(new Uint8Array([0x55, 0xaa]));
    await using loop = await attachedLoop({ path: table });
    equal(loop.blockBytes, 512);
    const { stdout } = await run("cat", [
      `/sys/block/${loop.device.slice(5)}/queue/logical_block_size`,
    ]);
    equal(stdout.trim(), "512");
  },
});

Deno.test({
  name: "a file that is not there is refused with its name",
  ...needs,
  async fn() {
    using temp = tempDir();
    await rejects(attachLoop({ path: temp.file("nothing"), blockBytes: 512 }), (error) => {
      ok(error instanceof Error);
      ok(error.message.includes(temp.file("nothing")), error.message);
      return true;
    });
    await rejects(detachLoop("/dev/loop-nothing"), { code: "sys/errno-2" });
  },
});
