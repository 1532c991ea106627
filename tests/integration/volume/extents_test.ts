/** What a volume says of its holes while it has a mirror, and when it calls zeros fast, on real files. */
import assert from "node:assert/strict";
import { FileBackend } from "../../../src/backend/mod.ts";
import {
  ChangeMap,
  MirrorLink,
  OPERATION,
  OPERATION_FLAG,
  Volume,
} from "../../../src/volume/mod.ts";
import { type InThread, inThread } from "../../support/in_thread.ts";
import { requires } from "../../support/requires.ts";
import { type TempDir, tempDir } from "../../support/temp.ts";

const MIB = 2 ** 20, BLOCK = 65_536;
const EOPNOTSUPP = 95;

/** A sparse file of 4 MiB with one block of data. */
function fileWith(temp: TempDir, thread: InThread, name: string, dataAt: number): FileBackend {
  const path = temp.file(name);
  const file = Deno.openSync(path, { create: true, write: true });
  file.truncateSync(4 * MIB);
  file.seekSync(dataAt, Deno.SeekMode.Start);
  file.writeSync(new Uint8Array(BLOCK).fill(1));
  file.close();
  return new FileBackend({ path, reactor: thread.reactor, operations: thread.operations });
}

async function withMirror(
  body: (volume: Volume, link: MirrorLink, thread: InThread) => Promise<void>,
): Promise<void> {
  using temp = tempDir();
  await inThread(async (thread) => {
    const source = fileWith(temp, thread, "source", 0);
    const target = fileWith(temp, thread, "target", MIB);
    const volume = new Volume({ name: "data", sizeBytes: 4 * MIB, active: source, ...thread });
    const link = new MirrorLink(
      target,
      await ChangeMap.create(thread.files, temp.file("map"), 4 * MIB),
    );
    volume.attachLink(link);
    await body(volume, link, thread);
    await source.close();
    await target.close();
  });
}

/** Writes zeros through the volume. @returns the errno. */
function zeroes({ requests, reactor }: InThread, volume: Volume, flags: number): Promise<number> {
  const { promise, resolve } = reactor.deferred<number>();
  const owner = requests.registerOwner((slot) => {
    resolve(requests.errno[slot] as number);
    requests.release(slot);
  });
  const slot = requests.take(owner);
  requests.code[slot] = OPERATION.writeZeroes;
  requests.flags[slot] = flags;
  requests.at[slot] = 0;
  requests.length[slot] = BLOCK;
  volume.submit(slot);
  return promise;
}

Deno.test({
  name: "dataExtents() speaks for the side that reads come from, before, in and after a commit",
  ...requires({ io_uring: true }),
  fn: () =>
    withMirror(async (volume, link) => {
      const ofSource = [{ at: 0, length: BLOCK }], ofTarget = [{ at: MIB, length: BLOCK }];
      const extents = () => volume.dataExtents(0, 4 * MIB);
      assert.deepEqual(await extents(), ofSource);
      volume.enterWriteThrough();
      assert.deepEqual(await extents(), ofSource);
      volume.beginCommit();
      assert.deepEqual(await extents(), ofTarget);
      volume.undoCommit();
      assert.deepEqual(await extents(), ofSource);
      volume.beginCommit();
      volume.finishCommit(4 * MIB);
      assert.equal(volume.active, link.target);
      assert.deepEqual(await extents(), ofTarget);
    }),
});

Deno.test({
  name: "dataExtents() asks the other side when the one that reads come from cannot answer",
  ...requires({ io_uring: true }),
  fn: () =>
    withMirror(async (volume, link) => {
      volume.enterWriteThrough();
      volume.beginCommit();
      link.target.dataExtents = () => Promise.reject(new Error("lost"));
      assert.deepEqual(await volume.dataExtents(0, 4 * MIB), [{ at: 0, length: BLOCK }]);
      volume.finishCommit(4 * MIB);
      await assert.rejects(volume.dataExtents(0, 4 * MIB), /lost/);
    }),
});

Deno.test({
  name: "zeros are fast while only one side takes them, and refused unchanged while both do",
  ...requires({ io_uring: true }),
  fn: () =>
    withMirror(async (volume, _link, thread) => {
      const { fastZero } = OPERATION_FLAG;
      volume.enterWriteThrough();
      assert.equal(await zeroes(thread, volume, fastZero), EOPNOTSUPP);
      assert.deepEqual(await volume.dataExtents(0, BLOCK), [{ at: 0, length: BLOCK }]);
      assert.equal(volume.inFlightAtTarget, 0);
      volume.dropWriteThrough(undefined);
      assert.equal(await zeroes(thread, volume, fastZero), 0);
      assert.deepEqual(await volume.dataExtents(0, BLOCK), []);
    }),
});
