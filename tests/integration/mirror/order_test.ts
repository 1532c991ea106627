/** What a target may do late must never undo what came after it. */
import assert from "node:assert/strict";
import { inThread } from "../../support/in_thread.ts";
import { MirrorRig } from "../../support/mirror_rig.ts";
import { requires } from "../../support/requires.ts";
import { tempDir } from "../../support/temp.ts";

const needs = requires({ io_uring: true });

async function withRig(body: (rig: MirrorRig) => Promise<void>): Promise<void> {
  using temp = tempDir();
  await inThread(async (thread) => {
    const rig = await MirrorRig.start(thread, temp);
    await body(rig);
    await rig.end();
  });
}

Deno.test({
  name: "a write left behind on its way to the target never lands on a newer copy",
  ...needs,
  fn: () =>
    withRig(async (rig) => {
      await rig.write(1);
      await rig.mirror.converge(5000);
      rig.target.hold();
      const left = rig.write(11);
      await rig.thread.reactor.sleep(5);
      rig.target.overtake();
      rig.mirror.pause();
      await left;
      await rig.write(22);
      rig.mirror.resume();
      const converging = rig.mirror.converge(5000);
      await rig.thread.reactor.sleep(100);
      assert.notEqual(rig.mirror.state, "ready");
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
    withRig(async (rig) => {
      await rig.write(1);
      await rig.mirror.converge(5000);
      rig.target.hold();
      const first = rig.write(11), second = rig.write(22);
      await rig.thread.reactor.sleep(5);
      assert.equal(rig.target.held, 1);
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
    withRig(async (rig) => {
      await rig.write(1);
      while (rig.mirror.state !== "tracking") await rig.thread.reactor.sleep(5);
      rig.target.hold();
      await rig.write(2);
      await assert.rejects(rig.mirror.converge(100), { code: "timeout/converge" });
      rig.target.release();
      while (rig.mirror.state !== "tracking") await rig.thread.reactor.sleep(5);
      await rig.mirror.converge(5000);
      await rig.switchOver();
      assert.equal(await rig.read(), 2);
    }),
});
