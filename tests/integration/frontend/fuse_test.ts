/** The served file itself, as programs see it, on the real kernel. */
import { deepStrictEqual, equal, ok, rejects } from "node:assert/strict";
import { run, waitUntil } from "../../support/process.ts";
import { requires } from "../../support/requires.ts";
import { serveFile } from "../../support/served_file.ts";
import { tempDir } from "../../support/temp.ts";
import { FUSE_TYPE, listMounts } from "../../../src/sys/mod.ts";

const MIB = 1 << 20;
const needs = requires({ root: true, io_uring: true, fuse: true });

Deno.test({
  name: "the file has the volume's size, keeps what is written anywhere, and shows growth at once",
  ...needs,
  async fn() {
    using temp = tempDir();
    await using served = await serveFile({ dir: temp.path, sizeBytes: 64 * MIB });
    equal((await Deno.stat(served.path)).size, 64 * MIB);
    using file = await Deno.open(served.path, { read: true, write: true });
    // Neither begin nor length lies on a boundary, and it is more than one request can carry.
    const bytes = randomBytes(5 * MIB + 321);
    await writeAt(file, 1234567, bytes);
    deepStrictEqual(await readAt(file, 1234567, bytes.length), bytes);
    deepStrictEqual(await readAt(file, 1234500, 67), new Uint8Array(67));
    await served.grow(96 * MIB);
    equal((await Deno.stat(served.path)).size, 96 * MIB);
    await writeAt(file, 96 * MIB - 5, bytes.subarray(0, 5));
    await file.sync();
    using backing = await Deno.open(served.backing);
    deepStrictEqual(await readAt(backing, 1234567, bytes.length), bytes);
    deepStrictEqual(await readAt(backing, 96 * MIB - 5, 5), bytes.slice(0, 5));
  },
});

Deno.test({
  name: "reading past the end reads less; writing past it is refused with no space",
  ...needs,
  async fn() {
    using temp = tempDir();
    await using served = await serveFile({ dir: temp.path, sizeBytes: 4 * MIB + 512 });
    using file = await Deno.open(served.path, { read: true, write: true });
    equal((await readAt(file, 4 * MIB, 4096)).length, 512);
    equal((await readAt(file, 5 * MIB, 4096)).length, 0);
    await rejects(writeAt(file, 4 * MIB + 511, new Uint8Array(2)), /ENOSPC|No space/);
    await rejects(writeAt(file, 2 ** 52, new Uint8Array(1)), /No space|too large/i);
    deepStrictEqual(await readAt(file, 4 * MIB, 4096), new Uint8Array(512));
  },
});

Deno.test({
  name: "nothing shortens the file: neither a shell's redirection nor truncate",
  ...needs,
  async fn() {
    using temp = tempDir();
    await using served = await serveFile({ dir: temp.path, sizeBytes: 2 * MIB });
    const bytes = randomBytes(4096);
    using file = await Deno.open(served.path, { read: true, write: true });
    await writeAt(file, 0, bytes);
    await rejects(Deno.open(served.path, { write: true, truncate: true }), /not permitted/);
    await rejects(Deno.truncate(served.path, MIB), /not permitted/);
    equal((await Deno.stat(served.path)).size, 2 * MIB);
    deepStrictEqual(await readAt(file, 0, 4096), bytes);
  },
});

Deno.test({
  name: "a punched hole and a zeroed range read as zeros, their neighbours as before",
  ...requires({ root: true, io_uring: true, fuse: true, commands: ["fallocate"] }),
  async fn() {
    using temp = tempDir();
    await using served = await serveFile({ dir: temp.path, sizeBytes: 16 * MIB });
    using file = await Deno.open(served.path, { read: true, write: true });
    const bytes = randomBytes(8 * MIB);
    await writeAt(file, 0, bytes);
    for (const [option, at] of [["--punch-hole", 1 * MIB], ["--zero-range", 4 * MIB]] as const) {
      await run("fallocate", [option, "-o", `${at}`, "-l", `${2 * MIB}`, served.path]);
      bytes.fill(0, at, at + 2 * MIB);
    }
    deepStrictEqual(await readAt(file, 0, 8 * MIB), bytes);
    // A hole may reach beyond the end; making room beyond it may not.
    await run("fallocate", ["--punch-hole", "-o", `${15 * MIB}`, "-l", `${9 * MIB}`, served.path]);
    await rejects(run("fallocate", ["-o", "0", "-l", `${32 * MIB}`, served.path]), /not supported/);
    equal((await Deno.stat(served.path)).size, 16 * MIB);
  },
});

Deno.test({
  name: "many readers and writers at once share few slots without a mistake",
  ...requires({ root: true, io_uring: true, fuse: true, commands: ["fio"] }),
  async fn() {
    using temp = tempDir();
    // Fewer slots than requests: the kernel's queue must hold the rest back.
    await using served = await serveFile({ dir: temp.path, sizeBytes: 64 * MIB, slots: 5 });
    const fio = (...more: string[]) =>
      run("fio", [
        `--filename=${served.path}`,
        "--name=verify",
        "--size=64m",
        "--verify=crc32c",
        "--verify_fatal=1",
        "--verify_state_save=0",
        "--allow_file_create=0",
        "--minimal",
        ...more,
      ]);
    await fio("--rw=randwrite", "--bs=4k", "--ioengine=libaio", "--direct=1", "--iodepth=32");
    await fio("--rw=randwrite", "--bsrange=512-300k", "--ioengine=psync", "--bs_unaligned");
  },
});

Deno.test({
  name: "exports come and go without keeping a slot, a descriptor or a mount",
  ...needs,
  async fn() {
    using temp = tempDir();
    await using served = await serveFile({ dir: temp.path, sizeBytes: 2 * MIB, slots: 3 });
    const { plane, volume: name, path } = served;
    const cycle = async () => {
      // Reads are in flight when the export ends: they are answered, or fail, but never hang.
      const file = await Deno.open(path);
      const reads = Array.from({ length: 8 }, () => readAt(file, 0, MIB).catch(() => undefined));
      await plane.command("unexportFuse", { name });
      await Promise.all(reads);
      file.close();
      await plane.command("exportFuse", { name, path });
    };
    await cycle();
    const before = openDescriptors();
    for (let i = 0; i < 10; i++) await cycle();
    equal(openDescriptors(), before);
    equal(listMounts().filter(({ at }) => at === path).length, 1);
    equal((await Deno.stat(path)).size, 2 * MIB);
  },
});

Deno.test({
  name: "an unmount from outside ends the export quietly, and it can be exported again",
  ...requires({ root: true, io_uring: true, fuse: true, commands: ["umount"] }),
  async fn() {
    using temp = tempDir();
    await using served = await serveFile({ dir: temp.path, sizeBytes: 2 * MIB });
    const { plane, volume: name, path } = served;
    await run("umount", [path]);
    await plane.command("unexportFuse", { name });
    await plane.command("exportFuse", { name, path });
    equal((await Deno.stat(path)).size, 2 * MIB);
    deepStrictEqual(served.events.filter(({ severity }) => severity === "error"), []);
  },
});

Deno.test({
  name: "a mount on a file in use, or on one that holds data, is refused, also through a link",
  ...needs,
  async fn() {
    using temp = tempDir();
    await using served = await serveFile({ dir: temp.path, sizeBytes: 2 * MIB });
    const { plane } = served, backing = temp.file("other.backing");
    Deno.writeFileSync(backing, new Uint8Array());
    Deno.truncateSync(backing, 2 * MIB);
    await plane.command("openVolume", {
      name: "other",
      directory: temp.file("other"),
      max_size_bytes: 2 ** 40,
      initial: {
        store: "test",
        store_volume: "other",
        size_bytes: 2 * MIB,
        backend: { type: "file", path: backing },
      },
    });
    Deno.symlinkSync(temp.path, temp.file("link"));
    for (const path of [served.path, `${temp.file("link")}/data`]) {
      await rejects(plane.command("exportFuse", { name: "other", path }), {
        code: "state/mounted",
      });
    }
    Deno.writeTextFileSync(temp.file("letter"), "dear reader");
    await rejects(plane.command("exportFuse", { name: "other", path: temp.file("letter") }), {
      code: "state/not-empty",
    });
    equal(Deno.readTextFileSync(temp.file("letter")), "dear reader");
    equal((await Deno.stat(served.path)).size, 2 * MIB);
  },
});

Deno.test({
  name: "the mount is listed as PSMA's own and only root reads the file",
  ...needs,
  async fn() {
    using temp = tempDir();
    await using served = await serveFile({ dir: temp.path, sizeBytes: MIB });
    const mount = await waitUntil(() => listMounts().find(({ at }) => at === served.path), {
      what: "the mount",
    });
    equal(mount.type, FUSE_TYPE);
    const { mode, uid, isFile } = await Deno.stat(served.path);
    ok(isFile);
    equal((mode ?? 0) & 0o777, 0o600);
    equal(uid, 0);
  },
});

function randomBytes(length: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  for (let at = 0; at < length; at += 65_536) {
    crypto.getRandomValues(bytes.subarray(at, at + 65_536));
  }
  return bytes;
}

async function writeAt(file: Deno.FsFile, at: number, bytes: Uint8Array): Promise<void> {
  await file.seek(at, Deno.SeekMode.Start);
  let written = 0;
  while (written < bytes.length) written += await file.write(bytes.subarray(written));
}

async function readAt(
  file: Deno.FsFile,
  at: number,
  length: number,
): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = new Uint8Array(length);
  await file.seek(at, Deno.SeekMode.Start);
  let filled = 0;
  while (filled < length) {
    const count = await file.read(bytes.subarray(filled));
    if (count === null) break;
    filled += count;
  }
  return bytes.slice(0, filled);
}

function openDescriptors(): number {
  return [...Deno.readDirSync("/proc/self/fd")].length;
}
