/** A volume's former place: nobody with an older state goes on there, and where somebody has, it is told. */
import assert from "node:assert/strict";
import { setTimeout as delay } from "node:timers/promises";
import { PsmaError, silentLog } from "../../../src/core/mod.ts";
import type { BackupMode } from "../../../src/codec/mod.ts";
import {
  DataPlane,
  type DataPlaneEvent,
  type Placement,
  type QuestionHandlers,
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
  /** How much later than it promotes the store's answer reaches the agent, or that it never does. */
  readonly answer: { lateMs: number; isLost: boolean };
  /** The directory of the agent's volume. */
  readonly directory: string;
  readonly events: DataPlaneEvent[];
  readonly initial: Placement;
  /** The agent that has moved the volume from `first` to `larger`. */
  readonly agent: DataPlane;
  /** Opens the volume again, and an agent whose state is of before the move opens it. */
  reopen(): Promise<VolumeStatus>;
  openAgain(): Promise<VolumeStatus>;
  openOld(): Promise<VolumeStatus>;
}

async function moved(mode: BackupMode, body: (setting: Setting) => Promise<void>): Promise<void> {
  using temp = tempDir();
  await using far = await FarStore.start(temp);
  const events: DataPlaneEvent[] = [], { questions } = far, answer = { lateMs: 0, isLost: false };
  const slow: QuestionHandlers = {
    ...questions,
    promote: async (question) => {
      const answered = await questions.promote(question);
      await delay(answer.lateMs);
      if (answer.isLost) throw new PsmaError("store/unreachable", "The answer is lost");
      return answered;
    },
  };
  const onEvent = (event: DataPlaneEvent) => events.push(event);
  const [agent, old] = await Promise.all([
    DataPlane.start({ log: silentLog, questions: slow, onEvent }),
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
      answer,
      directory: temp.file("v"),
      events,
      initial,
      agent,
      reopen: async () => {
        await agent.command("closeVolume", { name: "data" });
        return await open(agent, temp, "v", initial);
      },
      openAgain: () => open(agent, temp, "v", initial),
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

Deno.test({
  name: "a followed backup that our own claim has shut out is let in again, and is nobody else's",
  ...needs,
  fn: () =>
    moved("sync", async ({ agent, answer, events, far, reopen }) => {
      // Longer than a lost connection waits before it comes again, under the epoch of before.
      answer.lateMs = 400;
      await reopen();
      await waitUntil(async () => (await backupOf(agent))?.state === "in-step", {
        what: "the backup to be followed",
      });
      assert.equal(far.promoted.get("first"), 3);
      assert.deepEqual(events.filter(({ type }) => type === "backup.split-brain"), []);
    }),
});

Deno.test({
  name: "a way back whose answer is lost leaves its backup ours, and can be gone again",
  ...needs,
  fn: () =>
    moved("frozen", async ({ agent, answer, directory, events, far, openAgain }) => {
      await waitUntil(() => far.promoted.get("first") === 3, { what: "the former place's fence" });
      const goBack = async () => {
        await agent.command("closeVolume", { name: "data" });
        return await agent.command("restoreBackup", { name: "data", directory });
      };
      answer.isLost = true;
      await assert.rejects(goBack(), { code: "store/unreachable" });
      answer.isLost = false;
      await openAgain();
      await delay(500);
      assert.equal((await backupOf(agent))?.state, "frozen");
      assert.deepEqual(events.filter(({ type }) => type === "backup.split-brain"), []);
      await goBack();
      assert.equal((await openAgain()).active.store_volume, "first");
    }),
});

Deno.test({
  name: "a followed backup whose very next epoch is another's is not entered under it, nor later",
  ...needs,
  fn: () =>
    moved("async", async ({ agent, far, initial, reopen }) => {
      await reopen();
      assert.equal(far.promoted.get("first"), 3);
      await far.questions.promote({ target: initial, epoch: 4, claimant: "another" });
      for (let opening = 0; opening < 2; opening++) {
        await reopen();
        await waitUntil(async () => (await backupOf(agent))?.state === "taken-over", {
          what: "the backup to be known as another's",
        });
        await delay(200);
        assert.deepEqual(await far.plane.command("nbdSessions", { name: "first" }), {
          sessions: 0,
        });
      }
    }),
});
