/** A mirror in lock-step that loses it without losing its target: it comes back by itself, and copies nothing unlocked. */
import assert from "node:assert/strict";
import { failNth } from "../../../src/backend/mod.ts";
import { until } from "../../support/in_thread.ts";
import { type MirrorRig, type MirrorRigOptions, withMirrorRig } from "../../support/mirror_rig.ts";
import { requires } from "../../support/requires.ts";

const MIB = 2 ** 20, CHUNK = 65_536, EIO = 5;
const needs = requires({ io_uring: true });

async function inLockStep(
  options: MirrorRigOptions,
  body: (rig: MirrorRig) => Promise<void>,
): Promise<void> {
  await withMirrorRig({ role: "backup", keepsReady: true, ...options }, async (rig) => {
    await until(rig.thread, () => rig.mirror.isReady, "lock-step");
    await body(rig);
  });
}

Deno.test({
  name: "a backup whose gate was too slow for a switch is in lock-step again by itself",
  ...needs,
  fn: () =>
    inLockStep({}, async (rig) => {
      const { mirror, target, thread } = rig;
      await rig.write(7);
      target.hold();
      await assert.rejects(mirror.converge(300), { code: "timeout/converge" });
      assert.equal(mirror.isReady, false);
      target.release();
      await until(thread, () => mirror.isReady, "lock-step again");
    }),
});

Deno.test({
  name: "after a failed flush of the target no round copies without locks while writes go through",
  ...needs,
  fn: () =>
    inLockStep({ sizeBytes: 32 * MIB }, async (rig) => {
      const { mirror, link, targetFaults, thread } = rig, { copier } = mirror;
      for (let at = 0; at < 24 * MIB; at += CHUNK) await rig.write(7, at);
      const unlocked: boolean[] = [], round = copier.round.bind(copier);
      copier.round = (mode, limits) => {
        if (mode === "tracking") unlocked.push(link.writeThrough);
        return round(mode, limits);
      };
      targetFaults.rule = failNth("flush", { nth: 1, errno: EIO });
      await assert.rejects(copier.flushTarget(), { code: "io/copy" });
      assert.ok(link.map.dirtyBytes > 16 * MIB);
      await until(thread, () => mirror.isReady && link.map.dirtyBytes === 0, "lock-step again");
      assert.ok(!unlocked.includes(true));
    }),
});

Deno.test({
  name: "flushes of the target that meet, just when one ends, are one after the other",
  ...needs,
  fn: () =>
    inLockStep({}, async ({ mirror: { copier }, link: { map }, thread }) => {
      const flushed = map.flushed.bind(map);
      for (let turns = 0; turns < 10; turns++) {
        const ended = thread.reactor.deferred<void>();
        map.flushed = (isDurable) => {
          flushed(isDurable);
          ended.resolve();
        };
        const third = ended.promise.then(async () => {
          map.flushed = flushed;
          for (let turn = 0; turn < turns; turn++) await null;
          await copier.flushTarget();
        });
        await Promise.all([copier.flushTarget(), copier.flushTarget(), third]);
      }
    }),
});
