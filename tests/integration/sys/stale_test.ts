/** What a killed server leaves in the kernel is found and removed, and the volume works again. */
import { deepStrictEqual, equal, ok, rejects } from "node:assert/strict";
import { kill, run, start, type Started, waitUntil } from "../../support/process.ts";
import { requires } from "../../support/requires.ts";
import { serveFile } from "../../support/served_file.ts";
import { tempDir } from "../../support/temp.ts";
import { PsmaError } from "../../../src/core/mod.ts";
import {
  attachLoop,
  deadMounts,
  detachLoop,
  detectFilesystem,
  endHolders,
  findLoops,
  formatFilesystem,
  listMounts,
  mountFilesystem,
  mountsAt,
  removeStale,
  unmountFilesystem,
} from "../../../src/sys/mod.ts";

const needs = requires({
  root: true,
  io_uring: true,
  fuse: true,
  loop: true,
  filesystems: ["xfs"],
  commands: ["mkfs.xfs", "mkfs.ext4", "xfs_repair", "e2fsck", "sleep"],
});

for (const type of ["ext4", "xfs"]) {
  Deno.test({
    name:
      `${type}: mounts and loop devices of a killed server are removed, what was synced is there`,
    ...needs,
    async fn() {
      using temp = tempDir();
      const path = temp.file("data"), at = temp.file("mnt");
      await using _leftovers = { [Symbol.asyncDispose]: async () => void await removeStale(path) };
      await using server = await runningServer(temp.path, type);
      const [, device = ""] = await server.line(/serving (\S+)/);
      // It may be unable to end: it writes to the file system that it serves.
      kill(server.pid, "SIGKILL");
      equal(mountsAt(at).length, 1);
      deepStrictEqual(await findLoops(path), [device]);
      deepStrictEqual(await removeStale(path), { mounts: [path, at], loops: [device] });
      await server.status;
      deepStrictEqual(listMounts().filter((mount) => mount.at.startsWith(temp.path)), []);
      deepStrictEqual(await findLoops(path), []);
      deepStrictEqual(await removeStale(path), { mounts: [], loops: [] });
      await mountsAgain(temp.path, type);
    },
  });
}

Deno.test({
  name: "xfs mounts again while a program still holds a file of the dead one",
  ...needs,
  async fn() {
    using temp = tempDir();
    const path = temp.file("data");
    await using _leftovers = { [Symbol.asyncDispose]: async () => void await removeStale(path) };
    await using server = await runningServer(temp.path, "xfs");
    await using _user = start("sleep", ["1000"], { cwd: temp.file("mnt") });
    kill(server.pid, "SIGKILL");
    await removeStale(path);
    await server.status;
    await mountsAgain(temp.path, "xfs");
  },
});

Deno.test({
  name: "a file system that nobody serves any more is named when mkfs gives up at it",
  ...requires({
    root: true,
    io_uring: true,
    fuse: true,
    loop: true,
    filesystems: ["xfs"],
    commands: ["mkfs.xfs", "mkfs.btrfs"],
  }),
  async fn() {
    using temp = tempDir();
    const path = temp.file("data"), blank = temp.file("blank");
    await using _leftovers = { [Symbol.asyncDispose]: async () => void await removeStale(path) };
    await using server = await runningServer(temp.path, "xfs", "idle");
    Deno.writeTextFileSync(blank, "");
    Deno.truncateSync(blank, 512 << 20);
    const { device } = await attachLoop({ path: blank });
    await using _device = { [Symbol.asyncDispose]: async () => void await detachLoop(device) };
    kill(server.pid, "SIGKILL");
    await server.status;
    endHolders(path);
    await waitUntil(async () => (await deadMounts(temp.path)).length > 0, {
      what: "the file system to be given up",
    });
    deepStrictEqual(await deadMounts(temp.path), [path]);
    await rejects(formatFilesystem(device, "btrfs"), (error) => {
      ok(error instanceof PsmaError && error.code === "sys/mkfs");
      ok(error.hint?.includes(path), error.hint);
      return true;
    });
    await removeStale(path);
    await formatFilesystem(device, "btrfs");
    equal(await detectFilesystem(device), "btrfs");
  },
});

Deno.test({
  name: "another program's mount in the same place stays",
  ...requires({ root: true, commands: ["mount"] }),
  async fn() {
    using temp = tempDir();
    const path = temp.file("data");
    Deno.mkdirSync(path);
    await run("mount", ["-t", "tmpfs", "tmpfs", path]);
    try {
      deepStrictEqual(await removeStale(path), { mounts: [], loops: [] });
      equal(mountsAt(path).length, 1);
    } finally {
      unmountFilesystem(path);
    }
  },
});

/** A server whose file system holds a synced file and, unless it is idle, is being written to. */
async function runningServer(dir: string, type: string, how = "writing"): Promise<Started> {
  const script = new URL("../../support/killed_server.ts", import.meta.url).pathname;
  const server = start(Deno.execPath(), ["run", "-A", "--quiet", script, dir, type, how]);
  await server.line(/serving (\S+)/);
  await Deno.writeTextFile(`${dir}/mnt/kept`, "kept");
  await run("sync", ["-f", `${dir}/mnt`]);
  return server;
}

/** Serves the same bytes again. */
async function mountsAgain(dir: string, type: string): Promise<void> {
  await using served = await serveFile({ dir, sizeBytes: 512 << 20, again: true });
  const { device } = await attachLoop({ path: served.path });
  equal(await detectFilesystem(device), type);
  await mountFilesystem({ device, at: `${dir}/mnt`, type });
  equal(await Deno.readTextFile(`${dir}/mnt/kept`), "kept");
  unmountFilesystem(`${dir}/mnt`);
  if (type === "ext4") await run("e2fsck", ["-fn", device]);
  else await run("xfs_repair", ["-n", device]);
}
