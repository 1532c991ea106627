/** Real file systems on a served volume: verified data, a clean check, online growth, trim. */
import { equal, ok, rejects, throws } from "node:assert/strict";
import { run, waitUntil } from "../../support/process.ts";
import { type Requirements, requires, whatIsMissing } from "../../support/requires.ts";
import { serveFile } from "../../support/served_file.ts";
import { tempDir } from "../../support/temp.ts";
import { COUNTER } from "../../../src/codec/mod.ts";
import {
  attachLoop,
  detachLoop,
  detectFilesystem,
  deviceBytes,
  formatFilesystem,
  growFilesystem,
  growLoop,
  mountFilesystem,
  mountsAt,
  statFilesystem,
  syncFilesystem,
  unmountFilesystem,
} from "../../../src/sys/mod.ts";

const MIB = 1 << 20;
const SIZE_BYTES = 512 * MIB, GROWN_BYTES = 1024 * MIB, STEP_BYTES = 128 * MIB;

interface Kind {
  readonly type: "xfs" | "ext4" | "btrfs";
  /** The distribution's checker, which must find nothing, without repairing. */
  readonly check: readonly [string, ...string[]];
}

const KINDS: readonly Kind[] = [
  { type: "xfs", check: ["xfs_repair", "-n"] },
  { type: "ext4", check: ["e2fsck", "-fn"] },
  { type: "btrfs", check: ["btrfs", "check", "--check-data-csum"] },
];

const needs = ({ type, check: [checker] }: Kind, more: Partial<Requirements> = {}) =>
  requires({
    root: true,
    io_uring: true,
    fuse: true,
    loop: true,
    filesystems: [type],
    commands: ["fio", `mkfs.${type}`, checker, "fstrim"],
    temp_bytes: 2 * GROWN_BYTES,
    ...more,
  });

for (const kind of KINDS) {
  for (const directIo of [true, false]) {
    Deno.test({
      name: `${kind.type} keeps every byte and checks clean, loop direct I/O ${
        directIo ? "on" : "off"
      }`,
      ...needs(kind),
      async fn() {
        using temp = tempDir();
        await using mounted = await mountedVolume(temp.path, kind, directIo);
        await fio(mounted.at, "--direct=1", "--ioengine=libaio", "--iodepth=32");
        await fio(mounted.at, "--direct=0", "--ioengine=psync", "--fsync=64");
        await mounted.unmount();
        await check(kind, mounted.device);
      },
    });
  }
}

for (const kind of KINDS.filter(({ type }) => type !== "ext4")) {
  Deno.test({
    name: `${kind.type} grows while it is written to`,
    ...needs(kind),
    async fn() {
      using temp = tempDir();
      await using mounted = await mountedVolume(temp.path, kind);
      await growUnderLoad(mounted, kind);
    },
  });
}

const ext4 = KINDS[1] as Kind;

Deno.test({
  name: "ext4 grows while it is written to, with the capability that it asks for",
  ...needs(ext4, { capabilities: ["CAP_SYS_RESOURCE"] }),
  async fn() {
    using temp = tempDir();
    await using mounted = await mountedVolume(temp.path, ext4);
    await growUnderLoad(mounted, ext4);
  },
});

const mayGrowExt4 = whatIsMissing({ capabilities: ["CAP_SYS_RESOURCE"] }).length === 0;

Deno.test({
  name: "ext4 without the capability is refused with a reason, and stays as it was",
  ignore: mayGrowExt4 || needs(ext4).ignore,
  async fn() {
    using temp = tempDir();
    await using mounted = await mountedVolume(temp.path, ext4);
    const before = await statFilesystem(mounted.at);
    await mounted.served.grow(GROWN_BYTES);
    equal(await growLoop(mounted.device, mounted.served.path), GROWN_BYTES);
    await rejects(growFilesystem(mounted.at), {
      code: "sys/permission",
      hint: /CAP_SYS_RESOURCE/,
    });
    equal((await statFilesystem(mounted.at)).total_bytes, before.total_bytes);
    await mounted.unmount();
    await check(ext4, mounted.device);
  },
});

Deno.test({
  name: "space that a file gave back is given back by the volume, and reads as zeros",
  ...needs(ext4),
  async fn() {
    using temp = tempDir();
    await using mounted = await mountedVolume(temp.path, ext4);
    const file = `${mounted.at}/file`;
    await run("dd", ["if=/dev/urandom", `of=${file}`, "bs=1M", "count=128", "conv=fsync"]);
    const [at, length] = await firstExtent(file);
    const full = await allocatedBytes(mounted.served.backing);
    ok(await isZero(mounted.served.backing, at, length) === false, "the file's data is there");
    await Deno.remove(file);
    syncFilesystem(mounted.at);
    await run("fstrim", [mounted.at]);
    ok(full - await allocatedBytes(mounted.served.backing) >= 100 * MIB, "space came back");
    ok(await isZero(mounted.device, at, length), "trimmed blocks read as zeros");
  },
});

Deno.test({
  name: "formatting refuses a device that holds anything, and names the package it lacks",
  ...needs(ext4),
  async fn() {
    using temp = tempDir();
    await using mounted = await mountedVolume(temp.path, ext4);
    await mounted.unmount();
    await rejects(formatFilesystem(mounted.device, "xfs"), { code: "state/not-blank" });
    await rejects(formatFilesystem(mounted.device, "reiserfs"), { code: "usage/filesystem" });
    equal(await detectFilesystem(mounted.device), "ext4");
    await run("dd", ["if=/dev/zero", `of=${mounted.device}`, "bs=1M", "count=8", "conv=fsync"]);
    await run("dd", ["if=/dev/urandom", `of=${mounted.device}`, "bs=1k", "count=1", "seek=600"]);
    equal(await detectFilesystem(mounted.device), "other");
    await rejects(formatFilesystem(mounted.device, "ext4"), { code: "state/not-blank" });
  },
});

Deno.test({
  name: "a mount that cannot be says why; a busy one is not unmounted unless lazily",
  ...needs(ext4),
  async fn() {
    using temp = tempDir();
    await using mounted = await mountedVolume(temp.path, ext4);
    const { device, at } = mounted;
    await rejects(
      mountFilesystem({ device, at: temp.file("other"), type: "xfs" }),
      { code: "sys/errno-16" },
    );
    using open = await Deno.open(`${at}/open`, { write: true, create: true });
    throws(() => unmountFilesystem(at), { code: "sys/errno-16", hint: /lsof/ });
    equal(mountsAt(at).length, 1);
    unmountFilesystem(at, { lazy: true });
    equal(mountsAt(at).length, 0);
    await open.write(new Uint8Array(4096));
    await open.sync();
    open.close();
    await rejects(mountFilesystem({ device, at, type: "xfs" }), {
      code: "sys/errno-22",
      hint: /no XFS/,
    });
    await mountFilesystem({ device, at, type: "ext4", options: "ro,noatime" });
    equal((await Deno.stat(`${at}/open`)).size, 4096);
    await rejects(Deno.writeTextFile(`${at}/new`, ""), /Read-only/);
    unmountFilesystem(at);
  },
});

interface Mounted extends AsyncDisposable {
  readonly served: Awaited<ReturnType<typeof serveFile>>;
  readonly device: string;
  readonly at: string;
  unmount(): Promise<void>;
}

/** A volume with a fresh file system, mounted; disposal takes it all away, whatever state it is in. */
async function mountedVolume(dir: string, { type }: Kind, directIo = true): Promise<Mounted> {
  await using undo = new AsyncDisposableStack();
  const served = undo.use(await serveFile({ dir, sizeBytes: SIZE_BYTES }));
  const loop = await attachLoop({ path: served.path, directIo });
  const { device } = loop;
  equal(loop.directIo, directIo);
  const at = `${dir}/mnt`;
  await formatFilesystem(device, type);
  equal(await detectFilesystem(device), type);
  await mountFilesystem({ device, at, type });
  const kept = undo.move();
  return {
    served,
    device,
    at,
    unmount: () => Promise.resolve(unmountFilesystem(at)),
    async [Symbol.asyncDispose]() {
      unmountFilesystem(at, { lazy: true });
      await detachLoop(device);
      await kept.disposeAsync();
    },
  };
}

async function growUnderLoad({ served, device, at }: Mounted, kind: Kind): Promise<void> {
  let writing = true;
  const written = fio(at, "--direct=1", "--ioengine=libaio", "--iodepth=8", "--numjobs=3")
    .finally(() => writing = false);
  const writes = () => served.plane.counters.get(served.volume)?.[COUNTER.writes] ?? 0;
  for (let size = SIZE_BYTES + STEP_BYTES; size <= GROWN_BYTES; size += STEP_BYTES) {
    const before = writes();
    await waitUntil(() => !writing || writes() > before + 100, { what: "more writes" });
    await served.grow(size);
    equal(await growLoop(device, served.path), size);
    const { before_bytes, after_bytes } = await growFilesystem(at);
    ok(after_bytes - before_bytes >= 0.8 * STEP_BYTES, `from ${before_bytes} to ${after_bytes}`);
    ok(writing, "it was written to all the while");
  }
  await written;
  equal(deviceBytes(device), GROWN_BYTES);
  const again = await growFilesystem(at);
  equal(again.after_bytes, again.before_bytes);
  ok(again.after_bytes > 0.9 * GROWN_BYTES);
  unmountFilesystem(at);
  await check(kind, device);
}

/** Writes, then reads all back and compares; fails at the first wrong block. */
async function fio(at: string, ...more: string[]): Promise<void> {
  await run("fio", [
    "--name=verify",
    `--directory=${at}`,
    "--rw=randwrite",
    "--bsrange=4k-64k",
    "--size=48m",
    "--verify=crc32c",
    "--verify_fatal=1",
    "--verify_state_save=0",
    "--minimal",
    ...more,
  ]);
}

async function check({ check: [command, ...args] }: Kind, device: string): Promise<void> {
  await run(command, [...args, device]);
}

/** Where a file's first blocks lie on the device. @returns bytes: offset and length. */
async function firstExtent(file: string): Promise<[number, number]> {
  const { stdout } = await run("filefrag", ["-e", "-b4096", file]);
  const match = /^\s*0:\s*0\.\.\s*(\d+):\s*(\d+)\.\./m.exec(stdout);
  ok(match, stdout);
  return [Number(match[2]) * 4096, (Number(match[1]) + 1) * 4096];
}

async function allocatedBytes(path: string): Promise<number> {
  return ((await Deno.stat(path)).blocks ?? 0) * 512;
}

async function isZero(path: string, at: number, length: number): Promise<boolean> {
  using file = await Deno.open(path);
  await file.seek(at, Deno.SeekMode.Start);
  const bytes = new Uint8Array(MIB);
  for (let left = Math.min(length, 32 * MIB); left > 0;) {
    const count = await file.read(bytes.subarray(0, Math.min(left, bytes.length)));
    if (count === null) break;
    if (bytes.subarray(0, count).some((byte) => byte !== 0)) return false;
    left -= count;
  }
  return true;
}

Deno.test({
  name: "formatFilesystem() says in one line why mkfs refused",
  ...requires({ commands: ["mkfs.xfs"] }),
  async fn() {
    using temp = tempDir();
    const small = temp.file("small");
    Deno.writeTextFileSync(small, "");
    Deno.truncateSync(small, 16 * MIB);
    await rejects(formatFilesystem(small, "xfs"), {
      code: "sys/mkfs",
      message: /^Cannot format \S+ as xfs: [^\n]+$/,
    });
  },
});
