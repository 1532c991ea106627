/** Where an export holds data, as other people's servers tell it, and as they do not. */
import assert from "node:assert/strict";
import type { Extent } from "../../../src/backend/mod.ts";
import { nbdkit, qemuNbd, uriOf } from "../../support/nbd_peers.ts";
import { NbdProcess } from "../../support/nbd_process.ts";
import { waitUntil } from "../../support/process.ts";
import { requires } from "../../support/requires.ts";
import { type TempDir, tempDir } from "../../support/temp.ts";

const KIB = 1024, MIB = 1 << 20, GIB = 2 ** 30, TIB = 2 ** 40;

interface Bench {
  readonly process: NbdProcess;
  readonly temp: TempDir;
  readonly socket: string;
}

const test = (name: string, commands: readonly string[], fn: (bench: Bench) => Promise<void>) =>
  Deno.test({
    name,
    ...requires({ commands, io_uring: true }),
    async fn() {
      using temp = tempDir();
      await using process = await NbdProcess.start({ slots: 64 });
      await fn({ process, temp, socket: temp.file("kit.sock") });
      assert.equal((await process.call("stats", null)).operations_in_use, 0);
    },
  });

async function open(
  { process, socket }: Bench,
  policy: "hold" | "fail" = "fail",
): Promise<{ client: number; size_bytes: number }> {
  return await process.call("open", { uri: uriOf(socket), policy });
}

async function extentsOf(
  { process }: Bench,
  client: number,
  from: number,
  length: number,
): Promise<readonly Extent[]> {
  return (await process.call("extents", { client, from, length })).extents;
}

test("finds the few places with data in 3 TiB of zeros", ["nbdkit"], async (bench) => {
  await using _server = await nbdkit(bench.socket, [
    "data",
    `@${MIB} 17*${MIB} @${2 * TIB + 5 * GIB} 34*${2 * MIB}`,
    `size=${3 * TIB}`,
  ]);
  const { client, size_bytes } = await open(bench);
  assert.equal(size_bytes, 3 * TIB);
  const places = [
    { at: MIB, length: MIB },
    { at: 2 * TIB + 5 * GIB, length: 2 * MIB },
  ];
  assert.deepEqual(await extentsOf(bench, client, 0, size_bytes), places);
  // From the middle of one to the middle of the other.
  const part = await extentsOf(bench, client, MIB + 512 * KIB, 2 * TIB + 5 * GIB);
  assert.deepEqual(part, [
    { at: MIB + 512 * KIB, length: 512 * KIB },
    { at: 2 * TIB + 5 * GIB, length: MIB + 512 * KIB },
  ]);
  assert.deepEqual(await extentsOf(bench, client, 10 * GIB, GIB), []);
  await bench.process.call("closeClient", { client });
});

test("finds every run of a fragmented file, over many answers", ["qemu-nbd"], async (bench) => {
  const path = bench.temp.file("disk"), runs = 3000, each = 64 * KIB;
  using file = await Deno.open(path, { create: true, write: true });
  await file.truncate(2 * runs * each);
  const bytes = new Uint8Array(each).fill(1);
  for (let i = 0; i < runs; i++) {
    await file.seek(2 * i * each, Deno.SeekMode.Start);
    assert.equal(await file.write(bytes), each);
  }
  await using _server = await qemuNbd(bench.socket, ["--format=raw", path]);
  const { client, size_bytes } = await open(bench);
  const found = await extentsOf(bench, client, 0, size_bytes);
  assert.deepEqual(
    found,
    Array.from({ length: runs }, (_, i) => ({ at: 2 * i * each, length: each })),
  );
  await bench.process.call("closeClient", { client });
});

test("what lies outside of the extents reads as zeros", ["nbdkit"], async (bench) => {
  await using _server = await nbdkit(bench.socket, [
    "sparse-random",
    `size=${64 * MIB}`,
    "percent=20",
    `runlength=${256 * KIB}`,
    "seed=1",
  ]);
  const { client, size_bytes } = await open(bench);
  const found = await extentsOf(bench, client, 0, size_bytes);
  const listed = found.reduce((sum, { length }) => sum + length, 0);
  assert.ok(found.length > 10 && listed < size_bytes / 2, `${found.length} runs, ${listed} bytes`);
  const holes: Extent[] = [];
  let at = 0;
  for (const extent of [...found, { at: size_bytes, length: 0 }]) {
    if (extent.at > at) holes.push({ at, length: Math.min(extent.at - at, MIB) });
    at = extent.at + extent.length;
  }
  const operations = holes.map((hole) => ({ code: "read" as const, ...hole }));
  const { results } = await bench.process.call("run", { client, operations });
  results.forEach((result, i) => {
    assert.equal(result.digest, digestOfZeros(holes[i]?.length ?? 0), `hole ${i}`);
  });
  await bench.process.call("closeClient", { client });
});

test("a server that cannot tell has data everywhere", ["nbdkit"], async (bench) => {
  for (const filter of ["noextents", "error"]) {
    const fault = filter === "error" ? ["error-extents-rate=100%", "error-extents=EIO"] : [];
    await using _server = await nbdkit(bench.socket, [
      `--filter=${filter}`,
      "memory",
      `${16 * GIB}`,
      ...fault,
    ]);
    const { client } = await open(bench);
    const found = await extentsOf(bench, client, MIB, 10 * GIB);
    assert.deepEqual(found, [{ at: MIB, length: 10 * GIB }], filter);
    await bench.process.call("closeClient", { client });
  }
});

/** A server that takes a while to say where data is, and says in a log that it was asked. */
function slowToTell({ socket, temp }: Bench) {
  return nbdkit(socket, [
    "--filter=log",
    "--filter=delay",
    "data",
    `@${MIB} 17*${MIB} @${9 * GIB} 34*${MIB}`,
    `size=${12 * GIB}`,
    "delay-extents=300ms",
    `logfile=${temp.file("log")}`,
    "logappend=true",
  ]);
}

async function untilAsked({ temp }: Bench, times: number): Promise<void> {
  await waitUntil(async () => {
    const log = await Deno.readTextFile(temp.file("log"));
    return log.split(" Extents ").length > times;
  }, { what: `${times} questions` });
}

test("hold: goes on after a reconnect where the answers stopped", ["nbdkit"], async (bench) => {
  const first = await slowToTell(bench);
  const { client, size_bytes } = await open(bench, "hold");
  const asked = extentsOf(bench, client, 0, size_bytes);
  await untilAsked(bench, 3);
  await first.end("SIGKILL");
  await using _second = await slowToTell(bench);
  assert.deepEqual(await asked, [{ at: MIB, length: MIB }, { at: 9 * GIB, length: MIB }]);
  await bench.process.call("closeClient", { client });
});

test("fail: what is not told when the server goes counts as data", ["nbdkit"], async (bench) => {
  const server = await slowToTell(bench);
  const { client, size_bytes } = await open(bench, "fail");
  const asked = extentsOf(bench, client, 0, size_bytes);
  await untilAsked(bench, 3);
  await server.end("SIGKILL");
  const [first, rest, ...more] = await asked;
  assert.deepEqual(first, { at: MIB, length: MIB });
  assert.deepEqual(more, []);
  assert.ok(rest && rest.at > MIB && rest.at <= 9 * GIB, "some of it was told");
  assert.equal(rest.at + rest.length, size_bytes);
  await bench.process.call("closeClient", { client });
});

/** FNV-1a of so many zeros, as the process computes it. */
function digestOfZeros(length: number): string {
  let hash = 0x811c9dc5;
  for (let i = 0; i < length; i++) hash = Math.imul(hash, 0x01000193);
  return (hash >>> 0).toString(16);
}
