/** What becomes of writes that are under way while the two sides of a volume are exchanged, on real files. */
import assert from "node:assert/strict";
import {
  type Backend,
  DelayBackend,
  ErrorBackend,
  failNth,
  FileBackend,
} from "../../../src/backend/mod.ts";
import { ChangeMap, MirrorLink, OPERATION, Volume } from "../../../src/volume/mod.ts";
import { type InThread, inThread, never, until } from "../../support/in_thread.ts";
import { requires } from "../../support/requires.ts";
import { type TempDir, tempDir } from "../../support/temp.ts";

const MIB = 2 ** 20, BLOCK = 65_536, EIO = 5;
const needs = requires({ io_uring: true });

interface Pair {
  readonly thread: InThread;
  readonly volume: Volume;
  readonly source: DelayBackend;
  readonly target: DelayBackend;
  /** Fails what it is told to, at the source. */
  readonly faulty: ErrorBackend;
  /** The same at the target. */
  readonly targetFaults: ErrorBackend;
  readonly link: MirrorLink;
  readonly reverse: MirrorLink;
}

/** In write-through, with a mirror prepared that leads back. */
async function withPair(body: (pair: Pair) => Promise<void>): Promise<void> {
  using temp = tempDir();
  await inThread(async (thread) => {
    const open = (name: string): Backend => {
      Deno.writeFileSync(temp.file(name), new Uint8Array(0));
      Deno.truncateSync(temp.file(name), MIB);
      return new FileBackend({ path: temp.file(name), ...thread });
    };
    const faulty = new ErrorBackend(open("source"), thread.operations);
    const targetFaults = new ErrorBackend(open("target"), thread.operations);
    const source = new DelayBackend(faulty, thread),
      target = new DelayBackend(targetFaults, thread);
    const volume = new Volume({ name: "data", sizeBytes: MIB, active: source, ...thread });
    const link = new MirrorLink(target, await mapOf(thread, temp, "forth"));
    const reverse = new MirrorLink(source, await mapOf(thread, temp, "back"));
    volume.attachLink(link);
    volume.enterWriteThrough();
    await body({ thread, volume, source, target, faulty, targetFaults, link, reverse });
    await volume.drained();
    assert.equal(thread.requests.freeCount, thread.requests.count);
    assert.equal(thread.operations.inUse, 0);
    await source.close();
    await target.close();
  });
}

function mapOf(thread: InThread, temp: TempDir, name: string): Promise<ChangeMap> {
  return ChangeMap.create(thread.files, temp.file(name), MIB);
}

interface Outcome {
  errno: number | undefined;
}

/** A write of one chunk. Its `errno` is undefined until it was answered. */
function write(pair: Pair, chunk: number): Outcome {
  return submit(pair, OPERATION.write, chunk * BLOCK);
}

function flush(pair: Pair): Outcome {
  return submit(pair, OPERATION.flush, 0);
}

function submit({ thread, volume }: Pair, code: number, at: number): Outcome {
  const { requests, reactor } = thread;
  const outcome: Outcome = { errno: undefined };
  const owner = requests.registerOwner((slot) => {
    outcome.errno = requests.errno[slot] as number;
    requests.release(slot);
    reactor.wake();
  });
  const slot = requests.take(owner);
  requests.describe(slot, code, at, BLOCK, 0);
  volume.submit(slot);
  return outcome;
}

function commit({ volume, reverse }: Pair, { lockStep }: { lockStep: boolean }): void {
  reverse.writeThrough = lockStep;
  volume.beginCommit();
  volume.finishCommit(MIB);
}

Deno.test({
  name:
    "exchanged in lock-step, a write under way is answered when both sides have it, and not before",
  ...needs,
  fn: () =>
    withPair(async (pair) => {
      const { thread, volume, source, target, reverse } = pair;
      volume.prepareReverse(reverse);
      source.hold();
      const atFormer = write(pair, 1);
      target.hold();
      source.overtake();
      const atActive = write(pair, 2);
      commit(pair, { lockStep: true });
      assert.equal(volume.active, target);
      assert.equal(volume.inFlightAtTarget >= 1, true);
      target.release();
      await until(thread, () => atActive.errno === 0, "the write that both have");
      assert.equal(atFormer.errno, undefined);
      const after = write(pair, 3);
      source.release();
      await until(thread, () => atFormer.errno === 0 && after.errno === 0, "both other writes");
      assert.equal(reverse.map.dirtyChunks, 0);
    }),
});

Deno.test({
  name:
    "exchanged in lock-step, the former source that is left behind is dirty where writes were under way",
  ...needs,
  fn: () =>
    withPair(async (pair) => {
      const { thread, volume, source, reverse } = pair;
      volume.prepareReverse(reverse);
      source.hold();
      const left = write(pair, 1);
      commit(pair, { lockStep: true });
      volume.dropWriteThrough("it is too slow");
      await until(thread, () => left.errno === 0, "an answer without the backup");
      assert.deepEqual([reverse.map.isDirty(1), reverse.map.dirtyChunks], [true, 1]);
      // No copy of the chunk may begin while the old write can still land there.
      assert.equal(volume.hasWriteIn({ at: BLOCK, length: BLOCK }), true);
      source.release();
      await until(thread, () => !volume.hasWriteIn({ at: BLOCK, length: BLOCK }), "its end");
    }),
});

Deno.test({
  name:
    "exchanged while tracking, a write under way is answered without the former source, and dirty",
  ...needs,
  fn: () =>
    withPair(async (pair) => {
      const { thread, volume, source, reverse } = pair;
      volume.prepareReverse(reverse);
      source.hold();
      const left = write(pair, 1);
      commit(pair, { lockStep: false });
      await until(thread, () => left.errno === 0, "an answer without the former source");
      assert.deepEqual([reverse.map.isDirty(1), reverse.map.dirtyChunks], [true, 1]);
      assert.equal(volume.hasWriteIn({ at: BLOCK, length: BLOCK }), true);
      const after = write(pair, 2);
      await until(thread, () => after.errno === 0, "a write after it");
      assert.equal(reverse.map.isDirty(2), true);
      source.release();
      await until(thread, () => !volume.hasWriteIn({ at: BLOCK, length: BLOCK }), "its end");
    }),
});

Deno.test({
  name: "what was written since a way back was prepared is dirty there after a crash",
  ...needs,
  fn: () =>
    withPair(async (pair) => {
      const { thread, source, volume, reverse } = pair;
      source.hold();
      const under = write(pair, 1);
      volume.prepareReverse(reverse);
      source.release();
      const later = write(pair, 2);
      volume.dropWriteThrough("as it may before the commit");
      const alone = write(pair, 3);
      await until(thread, () => [under, later, alone].every(({ errno }) => errno === 0), "them");
      // As whoever opens the map after a kill does.
      reverse.map.unstableToDirty();
      const dirty = [1, 2, 3, 4].map((chunk) => reverse.map.isDirty(chunk));
      assert.deepEqual(dirty, [true, true, true, false]);
    }),
});

Deno.test({
  name: "a write that fails at the source while a commit is under way is dirty on the way back",
  ...needs,
  fn: () =>
    withPair(async (pair) => {
      const { thread, volume, faulty, reverse, link } = pair;
      volume.prepareReverse(reverse);
      volume.beginCommit();
      faulty.rule = failNth("write", { nth: 1, errno: EIO });
      const failed = write(pair, 1);
      await until(thread, () => failed.errno !== undefined, "its end");
      assert.equal(failed.errno, EIO);
      assert.equal(link.writeThrough, true);
      reverse.writeThrough = true;
      volume.finishCommit(MIB);
      assert.equal(reverse.map.isDirty(1), true);
    }),
});

Deno.test({
  name: "a way back that is discarded is marked no more, and may be closed under writes",
  ...needs,
  fn: () =>
    withPair(async (pair) => {
      const { thread, volume, source, reverse } = pair;
      volume.prepareReverse(reverse);
      source.hold();
      const under = write(pair, 1);
      volume.discardReverse();
      reverse.close();
      const after = write(pair, 2);
      source.release();
      await until(thread, () => under.errno === 0 && after.errno === 0, "both writes");
    }),
});

Deno.test({
  name: "while the target follows, a write is answered without it, and taken until it is there",
  ...needs,
  fn: () =>
    withPair(async (pair) => {
      const { thread, volume, target, link } = pair;
      volume.enterWriteThrough({ follows: true });
      target.hold();
      const early = write(pair, 1);
      await until(thread, () => early.errno === 0, "an answer before the target's");
      assert.equal(volume.hasWriteIn({ at: BLOCK, length: BLOCK }), true);
      // A later write of the same bytes must not overtake it.
      const later = write(pair, 1);
      const inStep = volume.enterLockStep();
      const both = write(pair, 2);
      const answered = () => later.errno !== undefined || both.errno !== undefined;
      await never(thread, answered, { for_ms: 10, what: "an answer without the target" });
      target.release();
      await inStep;
      await until(thread, () => later.errno === 0 && both.errno === 0, "both later writes");
      assert.equal(link.map.dirtyChunks, 0);
    }),
});

Deno.test({
  name: "what a target that follows failed to write is dirty, and the target is left",
  ...needs,
  fn: () =>
    withPair(async (pair) => {
      const { thread, volume, target, targetFaults, link } = pair;
      volume.enterWriteThrough({ follows: true });
      target.hold();
      targetFaults.rule = failNth("write", { nth: 1, errno: EIO });
      const early = write(pair, 3);
      await until(thread, () => early.errno === 0, "an answer before the target's");
      assert.equal(link.writeThrough, true);
      target.release();
      await until(thread, () => !link.writeThrough, "that the target is left");
      assert.deepEqual([link.map.isDirty(3), link.map.dirtyChunks], [true, 1]);
      await until(thread, () => volume.inFlightAtTarget === 0, "its end");
    }),
});

Deno.test({
  name:
    "a target that does not follow leaves slots for others, and is waited for where it would not",
  ...needs,
  fn: () =>
    withPair(async (pair) => {
      const { thread, volume, target } = pair;
      volume.enterWriteThrough({ follows: true });
      target.hold();
      const all = Array.from({ length: 15 }, (_, chunk) => write(pair, chunk));
      const answered = () => all.filter(({ errno }) => errno === 0).length;
      const most = Math.floor(thread.requests.count / 4);
      await until(thread, () => answered() === most, "the early answers");
      await never(thread, () => answered() > most, { for_ms: 20, what: "one answer too many" });
      assert.ok(volume.mirrorWaitMs() >= 10);
      target.release();
      await until(thread, () => answered() === all.length, "the rest");
    }),
});

Deno.test({
  name: "no write is answered early where others have taken most of the slots",
  ...needs,
  fn: () =>
    withPair(async (pair) => {
      const { thread: { requests }, thread, volume, target } = pair;
      volume.enterWriteThrough({ follows: true });
      target.hold();
      const owner = requests.registerOwner(() => {});
      const others = Array.from({ length: Math.floor(0.8 * requests.count) }, () =>
        requests.take(owner));
      const one = write(pair, 1);
      await never(thread, () =>
        one.errno !== undefined, { for_ms: 20, what: "an early answer" });
      for (const slot of others) requests.release(slot);
      const another = write(pair, 2);
      await until(thread, () => another.errno === 0, "an early answer");
      target.release();
      await until(thread, () => one.errno === 0, "the answer");
    }),
});

Deno.test({
  name:
    "a write that waits behind one which the active side has not done is not the target's fault",
  ...needs,
  fn: () =>
    withPair(async (pair) => {
      const { thread, volume, source } = pair, range = { at: 0, length: 2 * BLOCK };
      source.hold();
      const first = write(pair, 1), second = write(pair, 1);
      const locked = volume.lock(range), third = write(pair, 0);
      await never(thread, () => volume.mirrorWaitMs() > 0, { for_ms: 30, what: "a wait for it" });
      source.release();
      await locked;
      assert.equal(first.errno, 0);
      assert.notEqual(volume.mirrorWaitMs(), 0);
      volume.unlock(range);
      await until(thread, () => second.errno === 0 && third.errno === 0, "those behind it");
    }),
});

Deno.test({
  name: "a target that fails a flush has to get all again that it was to make durable",
  ...needs,
  fn: () =>
    withPair(async (pair) => {
      const { thread, targetFaults, link } = pair;
      const written = write(pair, 3);
      await until(thread, () => written.errno === 0, "the write");
      targetFaults.rule = failNth("flush", { nth: 1, errno: EIO });
      const flushed = flush(pair);
      await until(thread, () => flushed.errno === 0, "the flush, which the source has done");
      assert.equal(link.writeThrough, false);
      assert.deepEqual([link.map.isDirty(3), link.map.dirtyChunks], [true, 1]);
    }),
});

Deno.test({
  name:
    "a flush for the mirror that fails at the active side fails the application's next one, once",
  ...needs,
  fn: () =>
    withPair(async (pair) => {
      const { thread, volume, faulty } = pair;
      faulty.rule = failNth("flush", { nth: 1, errno: EIO });
      assert.equal(await volume.flushActive(thread.calls), EIO);
      const first = flush(pair), second = flush(pair);
      await until(thread, () => first.errno !== undefined && second.errno !== undefined, "both");
      assert.deepEqual([first.errno, second.errno], [EIO, 0]);
    }),
});

Deno.test({
  name:
    "an application's flush that overlaps one for the mirror is answered after it, and fails with it",
  ...needs,
  fn: () =>
    withPair(async (pair) => {
      const { thread, volume, faulty, source } = pair;
      faulty.rule = failNth("flush", { nth: 2, errno: EIO });
      source.hold();
      const application = flush(pair), mirrors = volume.flushActive(thread.calls);
      source.release();
      assert.equal(await mirrors, EIO);
      await until(thread, () => application.errno !== undefined, "the application's flush");
      const next = flush(pair);
      await until(thread, () => next.errno !== undefined, "the next one");
      assert.deepEqual([application.errno, next.errno], [EIO, 0]);
    }),
});

Deno.test({
  name:
    "a write that waits for a lock goes on when the target is left behind, whatever holds the lock",
  ...needs,
  fn: () =>
    withPair(async (pair) => {
      const { thread, volume, link } = pair, range = { at: 0, length: BLOCK };
      await volume.lock(range);
      const held = write(pair, 0);
      await never(thread, () => held.errno !== undefined, { for_ms: 5, what: "an answer" });
      volume.dropWriteThrough("it is too slow");
      await until(thread, () => held.errno === 0, "the write");
      assert.equal(link.holdsLock(range), false);
      assert.equal(link.map.isDirty(0), true);
      volume.unlock(range);
    }),
});
