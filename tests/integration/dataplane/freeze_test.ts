/** A backup that is frozen while its store goes: what it holds then. */
import assert from "node:assert/strict";
import { systemRng } from "../../../src/core/mod.ts";
import type { BackupClaim } from "../../../src/dataplane/backup_claim.ts";
import { BackupControl } from "../../../src/dataplane/backup_control.ts";
import type { MirrorControl } from "../../../src/dataplane/mirror_control.ts";
import type { Switching } from "../../../src/dataplane/switching.ts";
import type { VolumeParts } from "../../../src/dataplane/volume_opening.ts";
import type { Manifest } from "../../../src/volume/mod.ts";
import { inThread, never } from "../../support/in_thread.ts";
import { MirrorRig } from "../../support/mirror_rig.ts";
import { requires } from "../../support/requires.ts";
import { tempDir } from "../../support/temp.ts";

const needs = requires({ io_uring: true });

function firstByte(path: string): number {
  return Deno.readFileSync(path)[0] as number;
}

function placeOf({ target }: MirrorRig): string {
  return target.description.replace(/^delayed file /, "");
}

/** A backup of a volume in lock-step. @param commit what a commit of the manifest does. */
async function withBackup(
  commit: (rig: MirrorRig) => Promise<void>,
  body: (rig: MirrorRig, backup: BackupControl, told: unknown[]) => Promise<void>,
): Promise<void> {
  using temp = tempDir();
  await inThread(async (thread) => {
    const rig = await MirrorRig.start(thread, temp, { role: "backup" }), { manifest } = rig;
    const told: unknown[] = [];
    const parts = {
      context: { ...thread, rng: systemRng },
      volume: rig.volume,
      directory: { removeMap: () => {} },
      emit: (...event: unknown[]) => told.push(event[3]),
      manifest: {
        commit: async (change: (now: Manifest) => Manifest) => {
          await commit(rig);
          await manifest.commit(change);
        },
      },
    };
    const mirrors = {
      exists: true,
      mirror: rig.mirror,
      drop: () => rig.end(),
    };
    const backup = new BackupControl(
      parts as unknown as VolumeParts,
      mirrors as unknown as MirrorControl,
      {} as Switching,
      (_, work) => work(),
      {} as BackupClaim,
    );
    await rig.write(1);
    await rig.mirror.converge(5000);
    await body(rig, backup, told);
  });
}

Deno.test({
  name: "a backup that is left behind while it is frozen gets nothing more of the volume",
  ...needs,
  fn: () =>
    withBackup(
      async (rig) => {
        rig.volume.dropWriteThrough("its store was away for a moment");
        await rig.write(2);
        const holdsNew = () => firstByte(placeOf(rig)) === 2;
        await never(rig.thread, holdsNew, { for_ms: 300, what: "something newer in the backup" });
      },
      async (rig, backup, told) => {
        await backup.freeze("asked for");
        assert.deepEqual(told, [{ complete: true, lacking_bytes: 0 }]);
        assert.equal(rig.manifest.current.backup_rest?.complete, true);
        assert.equal(firstByte(placeOf(rig)), 1);
      },
    ),
});

Deno.test({
  name: "a backup whose freezing the disk refuses stays as it is until it is followed again",
  ...needs,
  fn: () =>
    withBackup(
      () => Promise.reject(new Error("no room")),
      async (rig, backup, told) => {
        await assert.rejects(backup.freeze("asked for"), /no room/);
        assert.deepEqual(told, []);
        await rig.write(2);
        const holdsNew = () => firstByte(placeOf(rig)) === 2;
        await never(rig.thread, holdsNew, { for_ms: 300, what: "something newer in the backup" });
        rig.mirror.resume();
        await rig.mirror.converge(5000);
        assert.ok(holdsNew());
        await rig.end();
      },
    ),
});
