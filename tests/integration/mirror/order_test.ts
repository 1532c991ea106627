/** What a target may do late must never undo what came after it. */
import assert from "node:assert/strict";
import { never, until } from "../../support/in_thread.ts";
import { mirrorTerms } from "../../support/mirror_terms.ts";
import { withMirrorRig } from "../../support/mirror_rig.ts";
import { requires } from "../../support/requires.ts";

const needs = requires({ io_uring: true });

Deno.test({
  name: "a write left behind on its way to the target never lands on a newer copy",
  ...needs,
  fn: () =>
    withMirrorRig({}, async (rig) => {
      await rig.write(1);
      await rig.mirror.converge(5000);
      rig.target.hold();
      const left = rig.write(11);
      await until(rig.thread, () => rig.target.held === 1, "the write at the target");
      rig.target.overtake();
      rig.mirror.pause();
      await left;
      await rig.write(22);
      rig.mirror.resume();
      const converging = rig.mirror.converge(5000);
      await never(rig.thread, () => rig.mirror.state === "ready", {
        for_ms: 100,
        what: "a ready mirror although a write to its target is under way",
      });
      rig.target.release();
      await converging;
      await rig.switchOver();
      assert.equal(await rig.read(), 22);
    }),
});

Deno.test({
  name: "two writes to one block in write-through reach both sides in one order",
  ...needs,
  fn: () =>
    withMirrorRig({}, async (rig) => {
      await rig.write(1);
      await rig.mirror.converge(5000);
      rig.target.hold();
      const first = rig.write(11), second = rig.write(22);
      await until(rig.thread, () => rig.target.held > 0, "the first write at the target");
      await never(rig.thread, () => rig.target.held > 1, {
        for_ms: 20,
        what: "a second write to the same block at the target",
      });
      rig.target.release();
      await Promise.all([first, second]);
      const before = await rig.read();
      await rig.switchOver();
      assert.deepEqual([before, await rig.read()], [22, 22]);
    }),
});

Deno.test({
  name: "a convergence that ran out of time goes back to tracking, and another one succeeds",
  ...needs,
  fn: () =>
    withMirrorRig({}, async (rig) => {
      await rig.write(1);
      await until(rig.thread, () => rig.mirror.state === "tracking", "tracking");
      rig.target.hold();
      await rig.write(2);
      await assert.rejects(rig.mirror.converge(100), { code: "timeout/converge" });
      rig.target.release();
      await until(rig.thread, () => rig.mirror.state === "tracking", "tracking");
      await rig.mirror.converge(5000);
      await rig.switchOver();
      assert.equal(await rig.read(), 2);
    }),
});

Deno.test({
  name:
    "a mirror that fell back while the store fenced is not switched to, whatever it has reached since",
  ...needs,
  fn: () =>
    withMirrorRig({}, async (rig) => {
      await rig.write(1);
      await rig.mirror.converge(5000);
      const fallBack = async () => {
        rig.volume.dropWriteThrough("the target was away for a moment");
        await rig.write(2);
        rig.target.hold();
        const again = () => rig.volume.link?.writeThrough === true && rig.target.held > 0;
        await until(rig.thread, again, "the mirror to converge again");
      };
      await assert.rejects(rig.switchOver(fallBack), { code: "state/not-ready" });
      rig.target.release();
      await rig.mirror.converge(5000);
      await rig.switchOver();
      assert.equal(await rig.read(), 2);
    }),
});

Deno.test({
  name: "a switch that came too late leaves a mirror that goes on in rounds",
  ...needs,
  fn: () =>
    withMirrorRig({}, async (rig) => {
      await rig.mirror.converge(5000);
      rig.volume.dropWriteThrough("the target was away for a moment");
      await assert.rejects(rig.switchOver(), { code: "state/not-ready" });
      await rig.write(2);
      const isCopied = () => rig.volume.link?.map.dirtyChunks === 0;
      await until(rig.thread, isCopied, "the next round");
      assert.equal(rig.volume.link?.writeThrough, false);
    }),
});

Deno.test({
  name: "a copy that a target holds up holds nobody up once it is left behind, and is made again",
  ...needs,
  fn: () =>
    withMirrorRig({}, async (rig) => {
      await rig.write(1);
      await rig.mirror.converge(5000);
      rig.target.hold();
      rig.volume.link?.map.markDirty(0, 65_536);
      await until(rig.thread, () => rig.target.held > 0, "the copy, under its lock");
      await rig.write(3);
      rig.target.release();
      await rig.mirror.converge(5000);
      await rig.switchOver();
      assert.equal(await rig.read(), 3);
    }),
});

Deno.test({
  name: "a mirror that is ended twice gives its memory back once",
  ...needs,
  fn: () =>
    withMirrorRig({}, async (rig) => {
      const { memory } = rig.mirror.copier.options, released = new Set<number>();
      const release = memory.release;
      memory.release = (one) => {
        assert.ok(!released.has(one.address), "memory was released twice");
        released.add(one.address);
        release(one);
      };
      try {
        await Promise.all([rig.mirror.end(), rig.mirror.end()]);
        await rig.mirror.end();
      } finally {
        memory.release = release;
      }
      assert.notEqual(released.size, 0);
    }),
});

Deno.test({
  name: "a mirror ends at once, however low the rate is at which it compares",
  ...needs,
  fn: () =>
    withMirrorRig({}, async (rig) => {
      await rig.write(1);
      await rig.mirror.converge(5000);
      rig.mirror.pause();
      rig.mirror.setTerms(mirrorTerms({ max_rate_bytes_per_s: 64, resync_interval_ms: 1 }));
      const { verification } = rig.mirror, doubt = () => rig.volume.link?.map.markDoubtful(0, 4096);
      doubt();
      await verification.doubts.resolve(() => true);
      doubt();
      const second = verification.doubts.resolve(() => true);
      const refused = assert.rejects(second, { code: "state/ended" });
      await never(rig.thread, () => verification.doubts.comparedBytes > 65_536, {
        for_ms: 50,
        what: "a second comparison, above the rate",
      });
      const begunMs = rig.thread.clock.monotonicMs();
      await rig.mirror.end();
      await refused;
      assert.ok(rig.thread.clock.monotonicMs() - begunMs < 5000);
    }),
});
