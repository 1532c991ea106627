/** What follows a switch: the backup followed, gone back to, taken over, frozen and retired, under a verifying writer. */
import assert from "node:assert/strict";
import { type PsmaError, seededRng, silentLog } from "../../../src/core/mod.ts";
import {
  type BackupMode,
  type BackupOrder,
  DataPlane,
  type DataPlaneEvent,
  type Placement,
  type QuestionHandlers,
  type VolumeStatus,
} from "../../../src/dataplane/mod.ts";
import { DeviceWriter } from "../../support/device_writer.ts";
import { mirrorTerms } from "../../support/mirror_terms.ts";
import { FarStore, thinPlacement } from "../../support/planes.ts";
import { waitUntil } from "../../support/process.ts";
import { requires } from "../../support/requires.ts";
import { type TempDir, tempDir } from "../../support/temp.ts";

const MIB = 2 ** 20;
const needs = requires({ io_uring: true });
const SMALL = 4 * MIB, LARGE = 8 * MIB;

interface Setting {
  readonly temp: TempDir;
  readonly far: FarStore;
  readonly agent: DataPlane;
  readonly writer: DeviceWriter;
  readonly events: DataPlaneEvent[];
}

/** Epochs that the local store was promoted to. */
type LocalEpochs = number[];

function questions(far: FarStore, local: LocalEpochs): QuestionHandlers {
  return {
    digests: (asked) => far.questions.digests(asked),
    promote: (asked) => {
      if (asked.target.store === "far") return far.questions.promote(asked);
      local.push(asked.epoch);
      return Promise.resolve(null);
    },
    storeEpoch: (asked) => far.questions.storeEpoch(asked),
  };
}

async function openData(agent: DataPlane, temp: TempDir, initial?: Placement): Promise<string> {
  await agent.command("serveNbd", { listen: { path: temp.file("a.sock") }, fenced: false });
  await agent.command("openVolume", {
    name: "data",
    directory: temp.file("data"),
    max_size_bytes: 64 * MIB,
    ...(initial ? { initial } : {}),
  });
  return (await agent.command("exportNbd", { name: "data", description: "test" })).uri;
}

async function setting(body: (one: Setting) => Promise<void>): Promise<void> {
  using temp = tempDir();
  await using far = await FarStore.start(temp);
  const events: DataPlaneEvent[] = [];
  const agent = await DataPlane.start({
    log: silentLog,
    questions: questions(far, []),
    onEvent: (event) => events.push(event),
  });
  const application = await DataPlane.start({ log: silentLog });
  try {
    const uri = await openData(agent, temp, thinPlacement(temp.file("first"), SMALL));
    const writer = await DeviceWriter.open(application, uri, seededRng(11));
    writer.start(8);
    await body({ temp, far, agent, writer, events });
  } finally {
    await application.stop();
    await agent.stop();
  }
}

const order = (mode: BackupMode) => ({ mode, terms: mirrorTerms(), failover_after_ms: 300 });

/** The volume moves to the far store; its first place is the backup. */
async function moveAway(
  { agent, far }: Setting,
  mode: BackupMode,
  backup: BackupOrder = order(mode),
): Promise<void> {
  const target = await far.create("v1", LARGE, 2);
  const terms = mirrorTerms();
  await agent.command("startMirror", { volume: "data", id: "m1", target, terms, compare: false });
  const report = await agent.command("switchVolume", {
    volume: "data",
    timeout_ms: 20_000,
    backup,
  });
  assert.equal(report.io_errors, 0);
}

/** What the agent does after a switch: first the backup grows, then the volume. */
async function growBoth({ agent, temp }: Setting): Promise<void> {
  Deno.truncateSync(temp.file("first"), LARGE);
  await agent.command("growBackup", { volume: "data", size_bytes: LARGE });
  await agent.command("growVolume", { name: "data", size_bytes: LARGE });
}

const statusOf = (agent: DataPlane): Promise<VolumeStatus> =>
  agent.command("volumeStatus", { name: "data" });

async function untilInStep(agent: DataPlane): Promise<void> {
  await waitUntil(async () => (await statusOf(agent)).backup_status?.state === "in-step", {
    what: "the backup is in lock-step",
  });
}

async function goesOn(writer: DeviceWriter): Promise<void> {
  const before = writer.writes;
  await waitUntil(() => writer.writes > before + 100, { what: "the application goes on" });
}

Deno.test({
  name:
    "a backup in lock-step takes the volume over when the new store is lost, and goes back to it",
  ...needs,
  fn: () =>
    setting(async (one) => {
      const { agent, far, writer, events } = one;
      await moveAway(one, "sync");
      const before = await statusOf(agent);
      // From the very commit on: nothing had to be copied first.
      assert.equal(before.backup_status?.state, "in-step");
      assert.equal(before.backup_status.mirror?.copied_bytes, 0);
      assert.equal(before.size_bytes, SMALL);
      await growBoth(one);
      assert.equal((await statusOf(agent)).size_bytes, LARGE);
      await goesOn(writer);
      assert.equal((await statusOf(agent)).backup_status?.state, "in-step");
      await far.plane.command("unexportNbd", { name: "v1" });
      await waitUntil(() => events.some(({ type }) => type === "backup.took-over"), {
        what: "the backup took over",
      });
      await goesOn(writer);
      const after = await statusOf(agent);
      assert.equal(after.active.store, "local");
      assert.equal(after.epoch, 3);
      assert.equal(after.size_bytes, LARGE);
      assert.equal(after.backup?.store, "far");
      assert.equal(after.backup_status?.state, "behind");
      assert.equal(after.last_cutover?.io_errors, 0);
      await far.plane.command("exportNbd", { name: "v1", description: "far", epoch: 2 });
      await untilInStep(agent);
      const report = await agent.command("switchVolume", {
        volume: "data",
        timeout_ms: 20_000,
        backup: order("sync"),
      });
      assert.equal(report.epoch, 4);
      assert.equal(report.digest_mismatches, 0);
      assert.equal((await statusOf(agent)).active.store, "far");
      await goesOn(writer);
      await writer.stop();
      await writer.verifyAll();
      const digest = async (of: DataPlane, name: string) =>
        (await of.command("digestExtents", { name, extents: [{ at: 0, length: MIB }] })).digests;
      assert.deepEqual(await digest(agent, "data"), await digest(far.plane, "v1"));
    }),
});

Deno.test({
  name: "the backup takes over although writes wait for each other at the store that is lost",
  ...needs,
  fn: () =>
    setting(async (one) => {
      const { far, writer, events } = one;
      await writer.stop();
      const terms = mirrorTerms({ write_through_timeout_ms: 50 });
      await moveAway(one, "sync", { mode: "sync", terms, failover_after_ms: 500 });
      await far.plane.command("unexportNbd", { name: "v1" });
      const write = (fill: number) =>
        writer.plane.command("writeDevice", {
          device: writer.device,
          at: 0,
          bytes: new Uint8Array(4096).fill(fill).buffer,
        });
      await Promise.all([1, 2, 3].map(write));
      assert.ok(events.some(({ type }) => type === "backup.took-over"));
      assert.ok(!events.some(({ type }) => type === "backup.not-taken-over"));
    }),
});

Deno.test({
  name: "an async backup follows in rounds, and a rollback leads back to it live",
  ...needs,
  fn: () =>
    setting(async (one) => {
      const { agent, writer } = one;
      await moveAway(one, "async");
      await growBoth(one);
      await waitUntil(
        async () => ((await statusOf(agent)).backup_status?.mirror?.rounds ?? 0) > 3,
        {
          what: "rounds of the mirror in reverse",
        },
      );
      const report = await agent.command("switchVolume", {
        volume: "data",
        timeout_ms: 20_000,
        backup: order("async"),
      });
      assert.equal(report.io_errors, 0);
      assert.equal(report.digest_mismatches, 0);
      await goesOn(writer);
      const status = await statusOf(agent);
      assert.equal(status.active.store, "local");
      assert.equal(status.backup?.store, "far");
      await writer.stop();
      await writer.verifyAll();
    }),
});

Deno.test({
  name: "a backup that is not in lock-step does not take over: requests wait, and it is said why",
  ...needs,
  fn: () =>
    setting(async (one) => {
      const { agent, far, writer, events } = one;
      await moveAway(one, "sync");
      await agent.command("pauseMirror", { volume: "data" });
      await goesOn(writer);
      await far.plane.command("unexportNbd", { name: "v1" });
      await waitUntil(() => events.some(({ type }) => type === "backup.not-taken-over"), {
        what: "the refusal is told",
      });
      const status = await statusOf(agent);
      assert.equal(status.active.store, "far");
      assert.equal(status.epoch, 2);
      await far.plane.command("exportNbd", { name: "v1", description: "far", epoch: 2 });
      await goesOn(writer);
      await writer.stop();
      await writer.verifyAll();
    }),
});

Deno.test({
  name: "a store that has fenced us out is not lost: the backup does not take over",
  ...needs,
  fn: () =>
    setting(async (one) => {
      const { agent, far, events } = one;
      await moveAway(one, "sync");
      await far.plane.command("promote", { name: "v1", epoch: 9 });
      await waitUntil(async () => (await statusOf(agent)).fenced, { what: "the fence to be seen" });
      // Three times as long as the backup waits for a store that is lost: it must not happen at all.
      const until = performance.now() + 900;
      await waitUntil(() => performance.now() > until, { what: "time to pass" });
      const status = await statusOf(agent);
      assert.deepEqual([status.epoch, status.active.store], [2, "far"]);
      assert.ok(!events.some(({ type }) => type === "backup.took-over"));
    }),
});

Deno.test({
  name:
    "a backup is frozen as the volume is at one moment, and gone back to only when it is closed",
  ...needs,
  fn: () =>
    setting(async (one) => {
      const { agent, temp, writer } = one;
      await moveAway(one, "async");
      await assert.rejects(
        agent.command("growVolume", { name: "data", size_bytes: LARGE }),
        (error: PsmaError) => error.code === "state/backup",
      );
      await writer.stop();
      await agent.command("freezeBackup", { volume: "data", reason: "its store has no room" });
      const frozen = await statusOf(agent);
      assert.equal(frozen.backup_status?.state, "frozen");
      assert.equal(frozen.backup_status.complete, true);
      assert.equal(frozen.backup_status.reason, "its store has no room");
      const now = Deno.readFileSync(temp.file("first"));
      await agent.command("growVolume", { name: "data", size_bytes: LARGE });
      const directory = temp.file("data");
      await assert.rejects(
        agent.command("restoreBackup", { name: "data", directory }),
        (error: PsmaError) => error.code === "state/open",
      );
      await agent.command("unexportNbd", { name: "data" });
      await agent.command("closeVolume", { name: "data" });
      const { epoch } = await agent.command("restoreBackup", { name: "data", directory });
      assert.equal(epoch, 3);
      const status = await agent.command("openVolume", {
        name: "data",
        directory,
        max_size_bytes: 64 * MIB,
      });
      assert.equal(status.active.store, "local");
      assert.equal(status.size_bytes, SMALL);
      assert.equal(status.backup?.store, "far");
      assert.equal(status.backup_status?.state, "frozen");
      assert.deepEqual(Deno.readFileSync(temp.file("first")), now);
      await agent.command("exportNbd", { name: "data", description: "test" });
      await writer.verifyAll();
    }),
});

Deno.test({
  name: "retiring a followed backup, and mirroring anew, end the following",
  ...needs,
  fn: () =>
    setting(async (one) => {
      const { agent, far, writer, events } = one;
      await moveAway(one, "sync");
      await growBoth(one);
      const terms = mirrorTerms();
      const target = await far.create("v2", 2 * LARGE, 3);
      await agent.command("startMirror", {
        volume: "data",
        id: "m2",
        target,
        terms,
        compare: false,
      });
      const frozen = events.find(({ type }) => type === "backup.frozen");
      assert.equal(frozen?.data?.["complete"], true);
      assert.equal((await statusOf(agent)).backup_status?.state, "frozen");
      await agent.command("switchVolume", {
        volume: "data",
        timeout_ms: 20_000,
        backup: order("sync"),
      });
      assert.equal((await statusOf(agent)).backup?.store_volume, "v1");
      await agent.command("retireBackup", { volume: "data" });
      const status = await statusOf(agent);
      assert.equal(status.backup, null);
      assert.equal(status.backup_status, null);
      await goesOn(writer);
      await writer.stop();
      await writer.verifyAll();
    }),
});
