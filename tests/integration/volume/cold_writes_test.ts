/** Writes to regions that the write-intent log has as cold, on real files whose log can be held back. */
import assert from "node:assert/strict";
import { FileBackend } from "../../../src/backend/mod.ts";
import type { Deferred } from "../../../src/core/mod.ts";
import {
  ChangeMap,
  IntentLog,
  MirrorLink,
  OPERATION,
  Volume,
  type VolumeFiles,
} from "../../../src/volume/mod.ts";
import { sparseFile } from "../../support/attached_loop.ts";
import { type InThread, inThread, never, until } from "../../support/in_thread.ts";
import { requires } from "../../support/requires.ts";
import { tempDir } from "../../support/temp.ts";

const MIB = 2 ** 20, CHUNK = 65_536, EIO = 5;
const needs = requires({ io_uring: true });

interface Setting {
  readonly thread: InThread;
  readonly volume: Volume;
  readonly link: MirrorLink;
  readonly source: FileBackend;
  /** Lets the blocks of the log through. */
  readonly gate: Deferred<void>;
}

/** Everything is cold, and the log's next block is held back. */
async function withColdVolume(body: (setting: Setting) => Promise<void>): Promise<void> {
  using temp = tempDir();
  await inThread(async (thread) => {
    const { files, turns } = thread, gate = turns.deferred<void>();
    const open = (name: string) =>
      new FileBackend({ path: sparseFile(temp.file(name), MIB), ...thread });
    const source = open("source"), target = open("target");
    const volume = new Volume({ name: "data", sizeBytes: MIB, active: source, ...thread });
    const map = await ChangeMap.create(files, temp.file("map"), MIB);
    const held = heldBack(files, gate.promise);
    const log = await IntentLog.create(held, turns, temp.file("log"), MIB, { all: false });
    const link = new MirrorLink(target, map, undefined, log);
    volume.attachLink(link);
    await body({ thread, volume, link, source, gate });
    gate.resolve();
    await volume.drained();
    await volume.detachLink();
    await link.close();
    assert.equal(thread.requests.freeCount, thread.requests.count);
    await source.close();
    await target.close();
  });
}

/** The files, with blocks that are written once the gate is open. */
function heldBack(files: VolumeFiles, gate: Promise<void>): VolumeFiles {
  return {
    bootId: files.bootId,
    read: (path) => files.read(path),
    replace: (path, bytes) => files.replace(path, bytes),
    settle: (path) => files.settle(path),
    map: (path) => files.map(path),
    openBlocks: (path) => {
      const blocks = files.openBlocks(path);
      const write = async (at: number, bytes: Uint8Array) => {
        await gate;
        await blocks.write(at, bytes);
      };
      return { write, close: () => blocks.close() };
    },
  };
}

function submit({ thread, volume }: Setting, code: number, chunk: number) {
  const { requests, reactor } = thread;
  const outcome: { errno: number | undefined } = { errno: undefined };
  const owner = requests.registerOwner((slot) => {
    outcome.errno = requests.errno[slot] as number;
    requests.release(slot);
    reactor.wake();
  });
  const slot = requests.take(owner);
  requests.describe(slot, code, chunk * CHUNK, CHUNK, 0);
  volume.submit(slot);
  return outcome;
}

Deno.test({
  name:
    "a write to a cold region reaches neither map nor source before the log has it; others go on",
  ...needs,
  fn: () =>
    withColdVolume(async (setting) => {
      const { thread, volume, link, source, gate } = setting;
      const write = submit(setting, OPERATION.write, 3);
      const read = submit(setting, OPERATION.read, 5);
      const flush = submit(setting, OPERATION.flush, 0);
      await until(thread, () => read.errno === 0 && flush.errno === 0, "the read and the flush");
      await never(thread, () => write.errno !== undefined, { for_ms: 50, what: "an answer" });
      assert.deepEqual([link.map.dirtyChunks, source.allocatedBytes()], [0, 0]);
      assert.equal(volume.mirrorWaitMs(), 0, "the target is not to blame");
      gate.resolve();
      await until(thread, () => write.errno === 0, "the write");
      assert.deepEqual([link.map.isDirty(3), link.map.dirtyChunks], [true, 1]);
      const again = submit(setting, OPERATION.write, 3);
      assert.equal(link.cold.length, 0, "it is hot now");
      await until(thread, () => again.errno === 0, "the second write");
    }),
});

Deno.test({
  name: "writes that wait for the log of a mirror that ends go on without it",
  ...needs,
  fn: () =>
    withColdVolume(async (setting) => {
      const { thread, volume } = setting;
      const write = submit(setting, OPERATION.write, 1),
        zeroes = submit(setting, OPERATION.trim, 9);
      assert.equal(setting.link.cold.length, 2);
      await volume.detachLink();
      await until(thread, () => write.errno === 0 && zeroes.errno === 0, "both");
      assert.equal(setting.link.map.dirtyChunks, 0);
    }),
});

Deno.test({
  name:
    "nobody waits for the log of a volume that is let go: writes to cold regions fail, and change nothing",
  ...needs,
  fn: () =>
    withColdVolume(async (setting) => {
      const { thread, volume, link, source } = setting;
      const waits = submit(setting, OPERATION.write, 3);
      volume.refuseCold(true);
      const comes = submit(setting, OPERATION.write, 5);
      assert.deepEqual([waits.errno, comes.errno], [EIO, EIO]);
      assert.deepEqual([link.map.dirtyChunks, source.allocatedBytes()], [0, 0]);
      volume.refuseCold(false);
      const later = submit(setting, OPERATION.write, 5);
      setting.gate.resolve();
      await until(thread, () => later.errno === 0, "the write");
    }),
});
