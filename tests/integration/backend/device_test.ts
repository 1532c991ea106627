/** Volumes on block devices: what is refused, what the kernel is told, and a volume that moves onto one. */
import assert from "node:assert/strict";
import { DeviceBackend, OPERATION_FLAG } from "../../../src/backend/mod.ts";
import { seededRng, silentLog } from "../../../src/core/mod.ts";
import { DataPlane, type Placement } from "../../../src/dataplane/mod.ts";
import { attachedLoop, sparseFile } from "../../support/attached_loop.ts";
import { BackendIo } from "../../support/backend_io.ts";
import { DeviceWriter } from "../../support/device_writer.ts";
import { inThread } from "../../support/in_thread.ts";
import { serveVolume, thinPlacement } from "../../support/planes.ts";
import { run } from "../../support/process.ts";
import { requires } from "../../support/requires.ts";
import { tempDir } from "../../support/temp.ts";
import { mirrorTerms } from "../../support/mirror_terms.ts";

const MIB = 1 << 20;
const needs = requires({ root: true, loop: true, io_uring: true, commands: ["losetup"] });

Deno.test({
  name: "DeviceBackend refuses what is in use, and has it when it is free again",
  ...needs,
  ...requires({ root: true, loop: true, io_uring: true, commands: ["mkfs.ext4", "mount"] }),
  async fn() {
    using temp = tempDir();
    const path = sparseFile(temp.file("image"), 8 * MIB);
    await using loop = await attachedLoop({ path, blockBytes: 512 });
    await run("mkfs.ext4", ["-q", loop.device]);
    Deno.mkdirSync(temp.file("mount"));
    await run("mount", [loop.device, temp.file("mount")]);
    const inUse = { code: "state/in-use", message: /it is mounted, or another program/ };
    try {
      await inThread(async (thread) => {
        await assert.rejects(
          Promise.resolve().then(() => new DeviceBackend({ path: loop.device, ...thread })),
          inUse,
        );
      });
    } finally {
      await run("umount", [temp.file("mount")]);
    }
    await inThread(async (thread) => {
      const open = () => new DeviceBackend({ path: loop.device, ...thread });
      const first = open();
      assert.throws(open, inUse);
      await first.close();
      await open().close();
    });
  },
});

Deno.test({
  name: "DeviceBackend refuses what is no block device",
  ...needs,
  async fn() {
    using temp = tempDir();
    const path = sparseFile(temp.file("image"), MIB);
    await inThread((thread) => {
      const open = (path: string) => () => new DeviceBackend({ path, ...thread });
      const notDevice = { code: "usage/not-a-device", message: /it is not a block device/ };
      assert.throws(open(path), notDevice);
      assert.throws(open(temp.file("nothing")), { code: "sys/errno-2" });
      assert.throws(open("/dev/null"), (error: Error) => /\/dev\/null/.test(error.message));
      return Promise.resolve();
    });
  },
});

Deno.test({
  name: "a trim gives blocks back, and zeros that may leave no hole do not",
  ...needs,
  async fn() {
    using temp = tempDir();
    const path = sparseFile(temp.file("image"), 8 * MIB);
    await using loop = await attachedLoop({ path, blockBytes: 4096 });
    const allocated = () => (Deno.statSync(path).blocks ?? 0) * 512;
    await inThread(async (thread) => {
      const device = new DeviceBackend({ path: loop.device, ...thread });
      const io = new BackendIo(thread, device);
      await io.write({ at: 0, fua: true }, new Uint8Array(4 * MIB).fill(1));
      const full = allocated();
      assert.ok(full >= 4 * MIB);
      await io.zero("writeZeroes", { at: 0, length: MIB, flags: OPERATION_FLAG.noHole });
      assert.equal(allocated(), full);
      // From the middle of a block: the whole blocks within go back.
      await io.zero("trim", { at: MIB + 100, length: 2 * MIB });
      assert.ok(allocated() <= full - 2 * MIB + 8192, `${allocated()} of ${full} bytes`);
      await device.close();
    });
  },
});

Deno.test({
  name: "a volume moves from a file onto a device with larger blocks, under a verifying writer",
  ...needs,
  async fn() {
    using temp = tempDir();
    const image = sparseFile(temp.file("image"), 24 * MIB);
    await using loop = await attachedLoop({ path: image, blockBytes: 4096 });
    const target: Placement = {
      store: "disks",
      store_volume: loop.device,
      size_bytes: 24 * MIB,
      backend: { type: "device", path: loop.device },
    };
    const promoted: number[] = [];
    const agent = await DataPlane.start({
      log: silentLog,
      questions: {
        digests: () => Promise.reject(new Error("a device is read back here")),
        promote: ({ epoch }) => {
          promoted.push(epoch);
          return Promise.resolve(null);
        },
        storeEpoch: () => Promise.reject(new Error("a device has none")),
      },
    });
    const application = await DataPlane.start({ log: silentLog });
    try {
      const uri = await serveVolume(agent, temp, {
        max_size_bytes: 64 * MIB,
        initial: thinPlacement(temp.file("first"), 8 * MIB),
      });
      const writer = await DeviceWriter.open(application, uri, seededRng(5));
      writer.start(8);
      await agent.command("startMirror", {
        volume: "data",
        id: "m1",
        target,
        terms: mirrorTerms(),
        compare: false,
      });
      const report = await agent.command("switchVolume", { volume: "data", timeout_ms: 30_000 });
      assert.deepEqual([report.io_errors, report.digest_mismatches], [0, 0]);
      assert.deepEqual(promoted, [2]);
      await writer.stop();
      await writer.verifyAll();
      await writer.close();
      Deno.truncateSync(image, 32 * MIB);
      await run("losetup", ["-c", loop.device]);
      const grown = await agent.command("growVolume", { name: "data", size_bytes: 32 * MIB });
      assert.deepEqual([grown.size_bytes, grown.allocated_bytes], [32 * MIB, null]);
      assert.deepEqual(grown.active.backend, target.backend);
      const written = grown.operations.find(({ operation }) => operation === "write");
      assert.ok(written && written.count > 0 && written.errors === 0 && written.bytes > 0);
      // A restart finds the device by the manifest.
      await agent.command("closeVolume", { name: "data" });
      const again = await agent.command("openVolume", {
        name: "data",
        directory: temp.file("data"),
        max_size_bytes: 64 * MIB,
      });
      assert.deepEqual([again.size_bytes, again.epoch], [32 * MIB, 2]);
    } finally {
      await application.stop();
      await agent.stop();
    }
  },
});
