/** The mirror engine on real files and a real ring, under a writer that knows every acknowledged write. */
import assert from "node:assert/strict";
import { DelayBackend, FileBackend } from "../../../src/backend/mod.ts";
import { seededRng } from "../../../src/core/mod.ts";
import { digestExtents } from "../../../src/dataplane/digests.ts";
import {
  cutOver,
  CutoverWindow,
  DIGEST_ALGORITHM,
  loadDigest,
  Mirror,
} from "../../../src/mirror/mod.ts";
import {
  ChangeMap,
  ManifestFile,
  MirrorLink,
  type MirrorRecord,
  newManifest,
  type Placement,
  Volume,
} from "../../../src/volume/mod.ts";
import { type InThread, inThread, until } from "../../support/in_thread.ts";
import { requires } from "../../support/requires.ts";
import { type TempDir, tempDir } from "../../support/temp.ts";
import { BLOCK_BYTES, VerifyingWriter } from "../../support/verifying_writer.ts";
import { mirrorTerms } from "../../support/mirror_terms.ts";

const needs = requires({ io_uring: true });
const digest = await loadDigest();
const MIB = 2 ** 20;

function thinFile(path: string, sizeBytes: number): Placement {
  Deno.writeFileSync(path, new Uint8Array(0));
  Deno.truncateSync(path, sizeBytes);
  return {
    store: "local",
    store_volume: path,
    size_bytes: sizeBytes,
    backend: { type: "file", path },
  };
}

interface Rig {
  readonly thread: InThread;
  readonly volume: Volume;
  readonly manifest: ManifestFile;
  readonly temp: TempDir;
}

async function rig(thread: InThread, temp: TempDir, sizeBytes: number): Promise<Rig> {
  const active = thinFile(temp.file("v0"), sizeBytes);
  const { reactor, operations } = thread;
  const backend = new FileBackend({ path: temp.file("v0"), reactor, operations });
  const volume = new Volume({ name: "data", sizeBytes, active: backend, ...thread });
  const manifest = await ManifestFile.create(
    thread.files,
    temp.file("manifest"),
    newManifest("data", active),
  );
  return { thread, volume, manifest, temp };
}

/** Starts a mirror to a new, larger file. `spoil` may change the digests that the store answers with. */
async function startMirror(
  { thread, volume, temp }: Rig,
  id: string,
  spoil: (digests: string[]) => string[] = (digests) => digests,
) {
  const { reactor, operations, calls, turns, memory, clock, files } = thread;
  const target = thinFile(temp.file(id), volume.sizeBytes + MIB);
  const record: MirrorRecord = {
    id,
    target,
    terms: mirrorTerms({ resync_interval_ms: 5 }),
    compare: false,
    role: "scale",
    digest_algorithm: DIGEST_ALGORITHM,
    paused: false,
  };
  const map = await ChangeMap.create(files, temp.file(`${id}.map`), volume.sizeBytes);
  const backend = new FileBackend({ path: temp.file(id), reactor, operations });
  const link = new MirrorLink(backend, map);
  volume.attachLink(link);
  for (const { at, length } of await volume.active.dataExtents(0, volume.sizeBytes)) {
    map.markDirty(at, length);
  }
  const events: string[] = [];
  const control = {
    digests: async (ranges: readonly { at: number; length: number }[]) =>
      spoil((await digestExtents(backend, ranges, calls, digest)).digests),
    promote: () => Promise.resolve(),
  };
  const mirror = new Mirror({
    record,
    volume,
    link,
    calls,
    turns,
    memory,
    clock,
    control,
    digest,
    emit: (type) => events.push(type),
  });
  mirror.start();
  return { mirror, link, control, events, target };
}

/** @returns the chunks in which source and target differ. */
async function differing({ calls }: InThread, volume: Volume, link: MirrorLink): Promise<number[]> {
  const { chunkBytes, chunks } = link.map;
  const ranges = Array.from(
    { length: chunks },
    (_, chunk) => ({ at: chunk * chunkBytes, length: chunkBytes }),
  );
  const source = await digestExtents(volume.active, ranges, calls, digest);
  const target = await digestExtents(link.target, ranges, calls, digest);
  return ranges.flatMap((_, at) => source.digests[at] === target.digests[at] ? [] : [at]);
}

Deno.test({
  name: "cutOver() twenty times under a verifying writer: no error, no mismatch",
  ...needs,
  async fn() {
    using temp = tempDir();
    await inThread(async (thread) => {
      const { turns, clock } = thread;
      const one = await rig(thread, temp, 4 * MIB);
      const writer = new VerifyingWriter(thread, one.volume, seededRng(42));
      writer.start(16);
      for (let round = 1; round <= 20; round++) {
        const { mirror, link, control } = await startMirror(one, `v${round}`);
        await mirror.converge(20_000);
        const { former, report } = await cutOver({
          ...one,
          mirror,
          control,
          turns,
          clock,
          claimant: `${round}`,
          window: new CutoverWindow(one.volume.counters, 0),
          onRetry: assert.fail,
          aftermath: { mode: "frozen", mirror: null, rest: null },
          onCommitted: () => {},
          isClosing: () => false,
        });
        assert.equal(report.epoch, round + 1);
        assert.equal(report.io_errors, 0);
        assert.equal(report.digest_mismatches, 0);
        assert.equal(one.volume.sizeBytes, (4 + round) * MIB);
        assert.equal(one.manifest.current.active.store_volume, temp.file(`v${round}`));
        await mirror.end();
        await former.close();
        link.map.close();
      }
      await writer.stop();
      await writer.verifyAll();
      assert.ok(writer.writes > 100 && writer.reads > 1000, `${writer.writes} ${writer.reads}`);
      assert.equal(thread.requests.freeCount, thread.requests.count);
      assert.equal(thread.operations.inUse, 0);
      await one.volume.active.close();
    });
  },
});

/** A mirror of a small written volume, with a store that tells `spoil`ed digests. */
async function withSpoiledMirror(
  spoil: (digests: string[]) => string[],
  body: (mirror: Mirror, events: readonly string[]) => Promise<void>,
): Promise<void> {
  using temp = tempDir();
  await inThread(async (thread) => {
    const one = await rig(thread, temp, 2 * MIB);
    const writer = new VerifyingWriter(thread, one.volume, seededRng(7));
    writer.start(4);
    await writer.written(200);
    await writer.stop();
    const { mirror, events } = await startMirror(one, "target", spoil);
    await body(mirror, events);
    await mirror.end();
    await one.volume.detachLink();
  });
}

Deno.test({
  name: "Mirror copies again what the store persisted wrongly, and is ready only after it is right",
  ...needs,
  async fn() {
    let lies = 2;
    const spoil = (digests: string[]) => digests.map((good) => lies-- > 0 ? "0".repeat(16) : good);
    await withSpoiledMirror(spoil, async (mirror, events) => {
      await mirror.converge(20_000);
      assert.equal(mirror.progress().digests.mismatched, 2);
      assert.ok(events.includes("mirror.digest-mismatch"));
    });
  },
});

Deno.test({
  name: "Mirror fails, and never gets ready, when one extent is wrong three times in a row",
  ...needs,
  async fn() {
    const spoil = (digests: string[]) => digests.map(() => "0".repeat(16));
    await withSpoiledMirror(spoil, async (mirror, events) => {
      await assert.rejects(mirror.converge(20_000), { code: "state/mirror" });
      assert.equal(mirror.state, "failed");
      assert.ok(events.includes("mirror.failed"));
    });
  },
});

Deno.test({
  name: "Mirror copies holes not at all, and only dirty chunks in later rounds",
  ...needs,
  async fn() {
    using temp = tempDir();
    await inThread(async (thread) => {
      const one = await rig(thread, temp, 64 * MIB);
      const writer = new VerifyingWriter(thread, one.volume, seededRng(3), 64);
      writer.start(4);
      await writer.written(200);
      await writer.stop();
      const { mirror, link } = await startMirror(one, "target");
      const settled = (rounds: number) =>
        until(thread, () => {
          const { state, rounds: done, dirtyBytes } = mirror.progress();
          return state === "tracking" && done >= rounds && dirtyBytes === 0;
        }, `round ${rounds}`);
      await settled(1);
      const first = mirror.copier.copiedBytes;
      assert.ok(first > 0 && first <= 64 * BLOCK_BYTES, `${first} copied`);
      assert.deepEqual(await differing(thread, one.volume, link), []);

      mirror.pause();
      const later = new VerifyingWriter(thread, one.volume, seededRng(4), 16);
      later.versions.set(writer.versions.subarray(0, 16));
      later.start(4);
      await later.written(50);
      await later.stop();
      assert.deepEqual(await differing(thread, one.volume, link), [0], "it is paused");
      mirror.resume();
      await settled(2);
      assert.equal(mirror.copier.copiedBytes - first, link.map.chunkBytes);
      assert.deepEqual(await differing(thread, one.volume, link), []);
      await mirror.end();
      await one.volume.detachLink();
    });
  },
});

Deno.test({
  name: "Mirror copies the dirty chunks once and nothing else after random writes to 1 % of them",
  ...needs,
  async fn() {
    using temp = tempDir();
    await inThread(async (thread) => {
      const sizeBytes = 256 * MIB, one = await rig(thread, temp, sizeBytes);
      const { mirror, link } = await startMirror(one, "target");
      const settled = (rounds: number) =>
        until(thread, () => {
          const { state, rounds: done, dirtyBytes } = mirror.progress();
          return state === "tracking" && done >= rounds && dirtyBytes === 0;
        }, `round ${rounds}`);
      await settled(1);
      mirror.pause();
      const writer = new VerifyingWriter(thread, one.volume, seededRng(9));
      writer.start(4);
      await writer.written(link.map.chunks / 100);
      await writer.stop();
      const { dirtyBytes } = mirror.progress(), before = mirror.copier.copiedBytes;
      const blockBytes = writer.versions.filter((version) => version > 0).length * BLOCK_BYTES;
      assert.ok(blockBytes > 0.9 * sizeBytes / 100 * BLOCK_BYTES / link.map.chunkBytes);
      assert.ok(dirtyBytes < 0.02 * sizeBytes, `${dirtyBytes} dirty`);
      mirror.resume();
      await settled(2);
      const copied = mirror.copier.copiedBytes - before;
      assert.ok(copied <= 1.05 * dirtyBytes, `${copied} copied of ${dirtyBytes} dirty`);
      assert.deepEqual(await differing(thread, one.volume, link), []);
      await mirror.end();
      await one.volume.detachLink();
    });
  },
});

Deno.test({
  name: "Volume tracks also the writes that were in flight when its mirror began",
  ...needs,
  async fn() {
    using temp = tempDir();
    await inThread(async (thread) => {
      const { reactor, operations, files } = thread;
      const open = (name: string) => {
        thinFile(temp.file(name), 2 * MIB);
        return new FileBackend({ path: temp.file(name), reactor, operations });
      };
      const source = new DelayBackend(open("source"), thread);
      const volume = new Volume({ name: "data", sizeBytes: 2 * MIB, active: source, ...thread });
      const writer = new VerifyingWriter(thread, volume, seededRng(5));
      source.hold();
      writer.start(16);
      await until(thread, () => source.held === 16, "requests in flight");
      const stopping = writer.stop();
      const map = await ChangeMap.create(files, temp.file("map"), volume.sizeBytes);
      volume.attachLink(new MirrorLink(open("target"), map));
      source.release();
      await stopping;
      assert.ok(writer.writes > 0);
      const written = [...writer.versions.entries()].filter(([, version]) => version > 0)
        .map(([block]) => Math.floor(block * BLOCK_BYTES / map.chunkBytes));
      assert.deepEqual(written.filter((chunk) => map.nextDirty(chunk) !== chunk), []);
      await volume.detachLink();
    });
  },
});
