/** Who uses a block device, as the kernel tells. */
import { deepEqual } from "node:assert/strict";
import {
  blockDeviceUsers,
  formatFilesystem,
  mountFilesystem,
  unmountFilesystem,
} from "../../../src/sys/mod.ts";
import { attachedLoop, sparseFile } from "../../support/attached_loop.ts";
import { start, waitUntil } from "../../support/process.ts";
import { requires } from "../../support/requires.ts";
import { tempDir } from "../../support/temp.ts";

const DEVICE_BYTES = 512 << 20;

Deno.test({
  name: "blockDeviceUsers() names programs and mounts, and nobody when there is none",
  ...requires({
    root: true,
    loop: true,
    filesystems: ["xfs"],
    commands: ["mkfs.xfs", "sh", "sleep"],
  }),
  async fn() {
    using temp = tempDir();
    const path = sparseFile(temp.file("image"), DEVICE_BYTES), at = temp.file("mounted");
    await using loop = await attachedLoop({ path });
    const { device } = loop;
    await formatFilesystem(device, "xfs");
    deepEqual(blockDeviceUsers(device), []);
    {
      await using program = start("sh", ["-c", `exec sleep 60 3<${device}`]);
      const users = await waitUntil(() => {
        const found = blockDeviceUsers(device);
        return found.length > 0 ? found : undefined;
      }, { what: "the program to be seen", within_ms: 10_000 });
      deepEqual(users, [`sleep (process ${program.pid})`]);
    }
    await mountFilesystem({ device, at, type: "xfs" });
    try {
      deepEqual(blockDeviceUsers(device), [`the file system at ${at}`]);
    } finally {
      unmountFilesystem(at);
    }
    deepEqual(blockDeviceUsers(device), []);
  },
});
