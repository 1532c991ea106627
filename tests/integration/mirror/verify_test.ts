/** Comparing both sides of a mirror on real files, while a writer that knows every byte goes on. */
import assert from "node:assert/strict";
import { seededRng } from "../../../src/core/mod.ts";
import type { VerifyRecord } from "../../../src/volume/mod.ts";
import { type InThread, inThread, until } from "../../support/in_thread.ts";
import {
  endMirror,
  fileVolume,
  flipBit,
  freshVerify,
  type MirroredVolume,
  mirrorVolume,
} from "../../support/mirrored_volume.ts";
import { requires } from "../../support/requires.ts";
import { type TempDir, tempDir } from "../../support/temp.ts";
import { VerifyingWriter } from "../../support/verifying_writer.ts";

const needs = requires({ io_uring: true });
const KIB = 1024, MIB = 2 ** 20, CHUNK = 64 * KIB;

/** Runs a verify to its end. */
async function verified(
  thread: InThread,
  { mirror, volume }: MirroredVolume,
  from: VerifyRecord = freshVerify(volume.sizeBytes),
): Promise<VerifyRecord> {
  const verify = mirror.verification.start({
    record: from,
    save: () => Promise.resolve(),
    onEnd: () => {},
  });
  await until(thread, () => verify.record.state !== "running", "the end of the verify");
  return verify.record;
}

/** A mirror of a volume whose first blocks are written; `body` goes on from there. */
async function withMirror(
  body: (thread: InThread, mirrored: MirroredVolume, writer: VerifyingWriter) => Promise<void>,
  { sizeBytes = 8 * MIB, slowStore = false }: { sizeBytes?: number; slowStore?: boolean } = {},
): Promise<void> {
  using temp: TempDir = tempDir();
  await inThread(async (thread) => {
    const volume = fileVolume(thread, temp, sizeBytes);
    const writer = new VerifyingWriter(thread, volume, seededRng(11));
    writer.start(8);
    await writer.written(1500);
    await writer.stop();
    // A slow store reads what the application has written since it was asked, unless that has to wait.
    const beforeDigests = async () => {
      const goal = writer.writes + (slowStore ? 12 : 0);
      const goesOn = () => writer.writes >= goal || !writer.isRunning || volume.link?.hasLocks;
      await until(thread, () => goesOn() === true, "what the store waits for");
    };
    const mirrored = await mirrorVolume(thread, temp, volume, { beforeDigests });
    await body(thread, mirrored, writer);
    await endMirror(mirrored);
    assert.equal(thread.operations.inUse, 0);
  });
}

Deno.test({
  name: "a verify finds no difference where there is none, whatever is written meanwhile",
  ...needs,
  async fn() {
    await withMirror(async (thread, mirrored, writer) => {
      const { mirror, link, volume } = mirrored;
      writer.start(3);
      let behind = 0, equal = 0;
      for (let round = 0; round < 6; round++) {
        // Tracking, getting ready, and write-through, in turns.
        const ready = round % 3 === 0 ? undefined : mirror.converge(20_000);
        if (round % 3 === 2) await ready;
        const record = await verified(thread, mirrored);
        await ready;
        if (round % 3 === 2) assert.equal(mirror.state, "ready");
        assert.deepEqual(record.mismatches, []);
        const { equal_bytes, behind_bytes, busy_bytes } = record;
        assert.equal(equal_bytes + behind_bytes + busy_bytes, volume.sizeBytes);
        behind += behind_bytes;
        equal += equal_bytes;
        if (round % 3 === 2) {
          mirror.pause();
          mirror.resume();
          await writer.written(100);
        }
      }
      assert.ok(equal > 0 && behind > 0, `${equal} equal, ${behind} behind`);
      await writer.stop();
      await mirror.converge(20_000);
      const still = await verified(thread, mirrored);
      assert.equal(still.equal_bytes, volume.sizeBytes);
      assert.equal(link.unverifiedBytes, 0);
      await writer.verifyAll();
      assert.equal(mirror.progress().digests.mismatched, 0);
    }, { sizeBytes: MIB, slowStore: true });
  },
});

Deno.test({
  name: "a verify finds a bit that was flipped in the target, says where, and has it repaired",
  ...needs,
  async fn() {
    await withMirror(async (thread, mirrored) => {
      const { mirror, link, events, sourcePath, targetPath, volume } = mirrored;
      flipBit(targetPath, 3 * CHUNK + 17);
      flipBit(targetPath, 4 * CHUNK + 17);
      flipBit(targetPath, 50 * CHUNK);
      const record = await verified(thread, mirrored);
      assert.deepEqual(record.mismatches, [
        { at: 3 * CHUNK, length: 2 * CHUNK },
        { at: 50 * CHUNK, length: CHUNK },
      ]);
      assert.equal(record.mismatched_bytes, 3 * CHUNK);
      assert.equal(record.equal_bytes, volume.sizeBytes - 3 * CHUNK);
      assert.equal(events.filter((type) => type === "mirror.verify-mismatch").length, 2);
      await until(thread, () => link.map.dirtyChunks === 0, "the repair");
      assert.deepEqual((await verified(thread, mirrored)).mismatches, []);
      assert.deepEqual(Deno.readFileSync(targetPath), Deno.readFileSync(sourcePath));
      assert.equal(mirror.state, "tracking");
    });
  },
});

Deno.test({
  name:
    "a verify while the mirror is ready takes the readiness away until what differs is repaired",
  ...needs,
  async fn() {
    await withMirror(async (thread, mirrored) => {
      const { mirror, link, targetPath } = mirrored;
      await mirror.converge(20_000);
      flipBit(targetPath, 9 * CHUNK);
      const record = await verified(thread, mirrored);
      assert.deepEqual(record.mismatches, [{ at: 9 * CHUNK, length: CHUNK }]);
      await until(thread, () => mirror.isReady && link.map.dirtyChunks === 0, "a new readiness");
      assert.deepEqual((await verified(thread, mirrored)).mismatches, []);
    });
  },
});

Deno.test({
  name: "converge() compares what was written through before it calls the mirror ready",
  ...needs,
  async fn() {
    await withMirror(async (_thread, mirrored, writer) => {
      const { mirror, link, sourcePath, targetPath, events } = mirrored;
      await mirror.converge(20_000);
      assert.equal(link.unverifiedBytes, 0);
      writer.start(4);
      await writer.written(300);
      await writer.stop();
      const chunk = link.unverified.next(0);
      assert.ok(chunk >= 0 && mirror.state === "ready", "written through and not compared");
      const checked = mirror.progress().digests.checked;
      // It was written to both sides, and never read back: nobody knows of this but the gate.
      flipBit(targetPath, chunk * CHUNK);
      await mirror.converge(20_000);
      assert.ok(mirror.isReady);
      assert.equal(link.unverifiedBytes, 0);
      assert.ok(mirror.progress().digests.checked > checked);
      assert.ok(events.includes("mirror.verify-mismatch"));
      assert.deepEqual(Deno.readFileSync(targetPath), Deno.readFileSync(sourcePath));
    });
  },
});

Deno.test({
  name: "a verify that was halted goes on where it was, with what it had found",
  ...needs,
  async fn() {
    await withMirror(async (thread, mirrored) => {
      const { mirror, volume, targetPath, link } = mirrored;
      mirror.pause();
      flipBit(targetPath, CHUNK);
      flipBit(targetPath, 120 * CHUNK);
      const slow = { ...freshVerify(volume.sizeBytes), max_rate_bytes_per_s: 8 * MIB };
      const first = mirror.verification.start({
        record: slow,
        save: () => Promise.resolve(),
        onEnd: () => {},
      });
      await until(thread, () => first.record.done_bytes > 0, "a beginning");
      await first.halt();
      assert.equal(first.record.state, "running");
      const at = first.record.done_bytes;
      assert.ok(at > 0 && at < volume.sizeBytes, `${at}`);
      const record = await verified(thread, mirrored, {
        ...first.record,
        max_rate_bytes_per_s: null,
      });
      assert.deepEqual(record.mismatches, [
        { at: CHUNK, length: CHUNK },
        { at: 120 * CHUNK, length: CHUNK },
      ]);
      assert.equal(record.equal_bytes + record.mismatched_bytes, volume.sizeBytes);
      assert.equal(link.map.dirtyChunks, 2);
    });
  },
});
