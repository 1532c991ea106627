/** A volume's former place: nobody with an older state goes on there, and where somebody has, it is told. */
import assert from "node:assert/strict";
import { silentLog } from "../../../src/core/mod.ts";
import type { BackupMode } from "../../../src/codec/mod.ts";
import {
  DataPlane,
  type DataPlaneEvent,
  type Placement,
  type VolumeStatus,
} from "../../../src/dataplane/mod.ts";
import { mirrorTerms } from "../../support/mirror_terms.ts";
import { FarStore } from "../../support/planes.ts";
import { waitUntil } from "../../support/process.ts";
import { requires } from "../../support/requires.ts";
import { type TempDir, tempDir } from "../../support/temp.ts";

const SIZE_BYTES = 1 << 20;
const needs = requires({ io_uring: true });

interface Setting {
  readonly far: FarStore;
  readonly events: DataPlaneEvent[];
  readonly initial: Placement;
  /** The agent that has moved the volume from `first` to `larger`. */
  readonly agent: DataPlane;
  /** Opens the volume again, and an agent whose state is of before the move opens it. */
  reopen(): Promise<VolumeStatus>;
  openOld(): Promise<VolumeStatus>;
}

async function moved(mode: BackupMode, body: (setting: Setting) => Promise<void>): Promise<void> {
  using temp = tempDir();
  await using far = await FarStore.start(temp);
  const { questions } = far, events: DataPlaneEvent[] = [];
  const onEvent = (event: DataPlaneEvent) => events.push(event);
  const [agent, old] = await Promise.all([
    DataPlane.start({ log: silentLog, questions, onEvent }),
    DataPlane.start({ log: silentLog, questions }),
  ]);
  try {
    const initial = await far.create("first", SIZE_BYTES, 1);
    await open(agent, temp, "v", initial);
    Deno.mkdirSync(temp.file("old"));
    Deno.copyFileSync(temp.file("v/manifest"), temp.file("old/manifest"));
    const target = await far.create("larger", 2 * SIZE_BYTES, 3), terms = mirrorTerms();
    await agent.command("startMirror", { volume: "data", id: "m", target, terms, compare: false });
    const backup = { mode, terms };
    await agent.command("switchVolume", { volume: "data", timeout_ms: 20_000, backup });
    await body({
      far,
      events,
      initial,
      agent,
      reopen: async () => {
        await agent.command("closeVolume", { name: "data" });
        return await open(agent, temp, "v", initial);
      },
      openOld: () => open(old, temp, "old", initial),
    });
  } finally {
    await Promise.all([agent.stop(), old.stop()]);
  }
}

function open(plane: DataPlane, temp: TempDir, directory: string, initial: Placement) {
  return plane.command("openVolume", {
    name: "data",
    directory: temp.file(directory),
    max_size_bytes: 2 * SIZE_BYTES,
    initial,
  });
}

const backupOf = async (agent: DataPlane) =>
  (await agent.command("volumeStatus", { name: "data" })).backup_status;

async function tellsSplitBrain({ agent, events }: Setting): Promise<void> {
  await waitUntil(async () => (await backupOf(agent))?.state === "taken-over", {
    what: "the backup to be known as another's",
  });
  const backup = await backupOf(agent);
  assert.match(backup?.reason ?? "", /^split brain is possible: another agent has taken over/);
  assert.equal(backup?.complete, false);
  assert.equal(events.filter(({ type }) => type === "backup.split-brain").length, 1);
}

Deno.test({
  name: "a state of before a switch finds the former place fenced, also after restarts",
  ...needs,
  fn: () =>
    moved("frozen", async ({ agent, far, reopen, openOld }) => {
      await waitUntil(() => far.promoted.get("first") === 3, { what: "the former place's fence" });
      await assert.rejects(openOld(), { code: "fenced/claimed" });
      await reopen();
      await assert.rejects(openOld(), { code: "fenced/claimed" });
      assert.equal((await backupOf(agent))?.state, "frozen");
    }),
});

Deno.test({
  name: "a frozen backup that another agent has taken over is told, and nothing is done about it",
  ...needs,
  fn: () =>
    moved("frozen", async (setting) => {
      const { far, initial, reopen } = setting;
      await waitUntil(() => far.promoted.get("first") === 3, { what: "the former place's fence" });
      await far.questions.promote({ target: initial, epoch: 9, claimant: "another" });
      assert.equal((await reopen()).epoch, 4);
      await tellsSplitBrain(setting);
      assert.equal(far.promoted.get("first"), 9);
    }),
});

Deno.test({
  name: "a followed backup is claimed at each opening, and told when another has taken it over",
  ...needs,
  fn: () =>
    moved("async", async (setting) => {
      const { agent, far, initial, reopen, openOld } = setting;
      // The epoch of before is 2: the opening takes the next, and an old state comes too late.
      await reopen();
      assert.equal(far.promoted.get("first"), 3);
      await assert.rejects(openOld(), { code: "fenced/claimed" });
      assert.notEqual((await backupOf(agent))?.state, "taken-over");
      await far.questions.promote({ target: initial, epoch: 9, claimant: "another" });
      await tellsSplitBrain(setting);
      await reopen();
      assert.equal((await backupOf(agent))?.state, "taken-over");
      assert.equal(far.promoted.get("first"), 9);
    }),
});
