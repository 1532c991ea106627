/** The server under the clients that people use: libnbd's tools, QEMU's, and fio, on both transports. */
import assert from "node:assert/strict";
import { NbdProcess } from "../../support/nbd_process.ts";
import { run } from "../../support/process.ts";
import { requires } from "../../support/requires.ts";
import { tempDir } from "../../support/temp.ts";

const KIB = 1024, MIB = 1 << 20;

interface Served extends AsyncDisposable {
  readonly process: NbdProcess;
  readonly unix: string;
  readonly tcp: string;
  file(name: string): string;
}

async function serve(sizeBytes: number): Promise<Served> {
  const temp = tempDir();
  const process = await NbdProcess.start();
  const path = temp.file("data.img");
  await Deno.writeFile(path, new Uint8Array());
  await Deno.truncate(path, sizeBytes);
  await process.call("serve", {
    server: "s",
    listen: { path: temp.file("nbd.sock") },
    fenced: false,
  });
  const { address } = await process.call("serve", {
    server: "s",
    listen: { host: "127.0.0.1", port: 0 },
    fenced: false,
  });
  const { uri } = await process.call("exportFile", {
    server: "s",
    name: "data",
    path,
    description: "test data",
  });
  return {
    process,
    unix: uri,
    tcp: `nbd://${address}/data`,
    file: (name) => temp.file(name),
    async [Symbol.asyncDispose]() {
      await process[Symbol.asyncDispose]();
      temp[Symbol.dispose]();
    },
  };
}

/** Bytes that differ everywhere, with holes between. */
async function writePattern(path: string, sizeBytes: number): Promise<void> {
  using file = await Deno.open(path, { write: true, create: true });
  await file.truncate(sizeBytes);
  const block = new Uint8Array(64 * 1024);
  for (let at = 0; at + block.length <= sizeBytes; at += 3 * block.length) {
    for (let i = 0; i < block.length; i++) block[i] = (at / 4096 + i * 31) & 0xff;
    await file.seek(at, Deno.SeekMode.Start);
    await file.write(block);
  }
}

Deno.test({
  name: "nbdinfo shows the export, and lists it",
  ...requires({ commands: ["nbdinfo"], io_uring: true }),
  async fn() {
    await using served = await serve(64 * MIB);
    for (const uri of [served.unix, served.tcp]) {
      const { stdout } = await run("nbdinfo", ["--json", uri]);
      const info = JSON.parse(stdout).exports[0];
      assert.equal(info["export-size"], 64 * MIB);
      assert.equal(info.description, "test data");
      assert.equal(info.is_read_only, false);
      assert.equal(info.can_multi_conn, true);
      assert.deepEqual(
        [info.can_flush, info.can_fua, info.can_trim, info.can_zero],
        [true, true, true, true],
      );
      assert.deepEqual(
        [info.can_cache, info.can_df, info.can_fast_zero],
        [true, true, true],
      );
      assert.deepEqual(info.contexts, ["base:allocation"]);
      assert.equal(info.block_size_maximum, MIB);
    }
    const list = await run("nbdinfo", ["--list", "--json", served.tcp.replace(/data$/, "")]);
    const [listed] = JSON.parse(list.stdout).exports;
    assert.deepEqual([listed["export-name"], listed.description], ["data", "test data"]);
  },
});

Deno.test({
  name: "nbdinfo --map and qemu-img map show data and holes as they are",
  ...requires({ commands: ["nbdinfo", "qemu-img"], io_uring: true }),
  async fn() {
    await using served = await serve(48 * MIB);
    await writePattern(served.file("data.img"), 48 * MIB);
    const expected: [number, number, boolean][] = [];
    for (let at = 0; at < 48 * MIB; at += 192 * KIB) {
      expected.push([at, 64 * KIB, false], [at + 64 * KIB, 128 * KIB, true]);
    }
    for (const uri of [served.unix, served.tcp]) {
      const map = await run("nbdinfo", ["--map", "--json", uri]);
      const extents = JSON.parse(map.stdout) as { offset: number; length: number; type: number }[];
      assert.deepEqual(
        extents.map(({ offset, length, type }) => [offset, length, type === 3]),
        expected,
      );
    }
    const map = await run("qemu-img", ["map", "-f", "raw", "--output=json", served.unix]);
    const extents = JSON.parse(map.stdout) as { start: number; length: number; zero: boolean }[];
    assert.deepEqual(extents.map(({ start, length, zero }) => [start, length, zero]), expected);
  },
});

Deno.test({
  name: "nbdcopy writes and reads back the same bytes over Unix socket and TCP",
  ...requires({ commands: ["nbdcopy"], io_uring: true }),
  async fn() {
    await using served = await serve(96 * MIB);
    await writePattern(served.file("in"), 96 * MIB);
    await run("nbdcopy", [served.file("in"), served.unix]);
    await run("nbdcopy", [served.tcp, served.file("out")]);
    await run("cmp", [served.file("in"), served.file("out")]);
    const { stdout } = await run("nbdcopy", ["--connections=4", served.unix, served.file("four")]);
    assert.equal(stdout, "");
    await run("cmp", [served.file("in"), served.file("four")]);
    // Holes stay holes on the way in and on the way out.
    for (const name of ["data.img", "out", "four"]) {
      const { blocks } = await Deno.stat(served.file(name));
      assert.ok((blocks ?? 0) * 512 < 40 * MIB, `${name} takes ${blocks} blocks`);
    }
  },
});

Deno.test({
  name: "qemu-img knows, compares and converts the export",
  ...requires({ commands: ["qemu-img"], io_uring: true }),
  async fn() {
    await using served = await serve(48 * MIB);
    await writePattern(served.file("in"), 48 * MIB);
    const convert = ["convert", "-n", "-f", "raw", "-O", "raw"];
    await run("qemu-img", [...convert, served.file("in"), served.unix]);
    await run("qemu-img", ["compare", "-f", "raw", "-F", "raw", served.file("in"), served.tcp]);
    const { stdout } = await run("qemu-img", ["info", "-f", "raw", "--output=json", served.unix]);
    assert.equal(JSON.parse(stdout)["virtual-size"], 48 * MIB);
    await run("qemu-img", ["convert", "-f", "raw", "-O", "raw", served.tcp, served.file("out")]);
    await run("cmp", [served.file("in"), served.file("out")]);
  },
});

Deno.test({
  name: "fio verifies what it wrote with 32 requests in flight, small and large",
  ...requires({ commands: ["fio"], io_uring: true }),
  async fn() {
    await using served = await serve(96 * MIB);
    const common = [
      "--ioengine=nbd",
      "--iodepth=32",
      "--verify=crc32c",
      "--verify_state_save=0",
      "--output-format=json",
    ];
    const jobs = [
      ["--name=small", `--uri=${served.unix}`, "--rw=randwrite", "--bs=4k", "--size=32m"],
      ["--name=mixed", `--uri=${served.tcp}`, "--rw=randrw", "--bsrange=512-1m", "--size=64m"],
      [
        "--name=trims",
        `--uri=${served.unix}`,
        "--rw=randtrimwrite",
        "--bs=64k",
        "--size=16m",
        "--fsync=8",
        // fio does not wait for a trim before it writes to the same place.
        "--iodepth=1",
      ],
    ];
    for (const job of jobs) {
      const { stdout } = await run("fio", [...common, ...job]);
      const result = JSON.parse(stdout.slice(stdout.indexOf("{")));
      assert.equal(result.jobs[0].error, 0, job[0]);
    }
    const stats = await served.process.call("stats", null);
    assert.deepEqual([stats.slots_free, stats.connected], [128, 0]);
  },
});
