/** What a mirror does when its target goes away, stays away, or was never there after a restart. */
import assert from "node:assert/strict";
import { seededRng, silentLog } from "../../../src/core/mod.ts";
import { DataPlane, type DataPlaneEvent, type Placement } from "../../../src/dataplane/mod.ts";
import { DeviceWriter } from "../../support/device_writer.ts";
import { FarStore, thinPlacement } from "../../support/planes.ts";
import { waitUntil } from "../../support/process.ts";
import { requires } from "../../support/requires.ts";
import { type TempDir, tempDir } from "../../support/temp.ts";
import { mirrorTerms } from "../../support/mirror_terms.ts";

const MIB = 2 ** 20;
const needs = requires({ io_uring: true });

interface Setting {
  readonly temp: TempDir;
  readonly far: FarStore;
  readonly agent: DataPlane;
  readonly application: DataPlane;
  readonly writer: DeviceWriter;
  readonly events: DataPlaneEvent[];
  readonly target: Placement;
}

function startMirror(agent: DataPlane, target: Placement): Promise<unknown> {
  return agent.command("startMirror", {
    volume: "data",
    id: "m1",
    target,
    terms: mirrorTerms({ write_through_timeout_ms: 200 }),
    compare: false,
  });
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
    questions: far.questions,
    onEvent: (event) => events.push(event),
  });
  const application = await DataPlane.start({ log: silentLog });
  try {
    const uri = await openData(agent, temp, thinPlacement(temp.file("first"), 4 * MIB));
    const writer = await DeviceWriter.open(application, uri, seededRng(11));
    const target = await far.create("v1", 8 * MIB, 2);
    await body({ temp, far, agent, application, writer, events, target });
  } finally {
    await application.stop();
    await agent.stop();
  }
}

Deno.test({
  name:
    "a ready mirror that loses its target lets the application go on, and converges when it is back",
  ...needs,
  fn: () =>
    setting(async ({ agent, far, writer, events, target }) => {
      writer.start(8);
      await startMirror(agent, target);
      await agent.command("convergeMirror", { volume: "data", timeout_ms: 20_000 });
      await far.plane.command("unexportNbd", { name: "v1" });
      await waitUntil(() => events.some((event) => event.type === "mirror.fell-back"), {
        what: "the mirror fell back",
      });
      const before = writer.writes;
      await waitUntil(() => writer.writes > before + 100, { what: "the application goes on" });
      await far.plane.command("exportNbd", { name: "v1", description: "far", epoch: 2 });
      const report = await agent.command("switchVolume", { volume: "data", timeout_ms: 20_000 });
      assert.equal(report.io_errors, 0);
      await writer.stop();
      await writer.verifyAll();
    }),
});

Deno.test({
  name: "a volume opens, serves and tracks while its mirror's target is away",
  ...needs,
  fn: () =>
    setting(async ({ temp, agent, far, writer, target }) => {
      writer.start(4);
      await startMirror(agent, target);
      await waitUntil(async () => {
        const status = await agent.command("mirrorStatus", { volume: "data" });
        return (status?.rounds ?? 0) > 1;
      }, { what: "some copies were made" });
      await far.plane.command("unexportNbd", { name: "v1" });
      await far.plane.command("closeVolume", { name: "v1" });
      await far.plane.stop();
      await agent.stop();
      const second = await DataPlane.start({ log: silentLog, questions: far.questions });
      try {
        await openData(second, temp);
        const before = writer.writes;
        await waitUntil(() => writer.writes > before + 100, { what: "the application goes on" });
        const status = await second.command("mirrorStatus", { volume: "data" });
        assert.equal(status?.state, "requested");
        assert.ok((status?.dirty_bytes ?? 0) > 0);
        await writer.stop();
        await writer.verifyAll();
      } finally {
        await second.stop();
      }
    }),
});

/** Copies to a local file, closes the plane, and takes the file away. */
async function withoutTarget(
  body: (
    one: Setting & { path: string; second: DataPlane; told: DataPlaneEvent[] },
  ) => Promise<void>,
): Promise<void> {
  await setting(async (one) => {
    const { temp, agent, writer } = one, path = temp.file("local");
    writer.start(4);
    await startMirror(agent, thinPlacement(path, 8 * MIB));
    await waitUntil(async () => {
      const status = await agent.command("mirrorStatus", { volume: "data" });
      return (status?.rounds ?? 0) > 1;
    }, { what: "some copies were made" });
    await agent.stop();
    Deno.renameSync(path, `${path}.away`);
    for (const stray of ["m0.map", "m0.intent", "m0.unverified", "backup-7.map"]) {
      Deno.writeTextFileSync(`${temp.file("data")}/${stray}`, "left by a kill");
    }
    const told: DataPlaneEvent[] = [];
    const second = await DataPlane.start({
      log: silentLog,
      questions: { ...one.far.questions, promote: () => Promise.resolve(null) },
      onEvent: (event) => void told.push(event),
    });
    try {
      await openData(second, temp);
      const before = writer.writes;
      await waitUntil(() => writer.writes > before + 100, { what: "the application goes on" });
      await body({ ...one, path, second, told });
    } finally {
      await second.stop();
    }
  });
}

Deno.test({
  name: "a volume opens without its mirror's file, says so, and converges once the file is back",
  ...needs,
  fn: () =>
    withoutTarget(async ({ temp, path, second, told, writer }) => {
      const status = await second.command("mirrorStatus", { volume: "data" });
      assert.equal(status?.state, "requested");
      assert.match(status?.reason ?? "", /not reachable: Cannot open .*local/);
      assert.ok(told.some(({ type }) => type === "mirror.target-away"));
      const names = Array.from(Deno.readDirSync(temp.file("data")), ({ name }) => name);
      assert.deepEqual(names.filter((name) => /m0|backup-7/.test(name)), []);
      assert.ok(names.includes("m1.map"));
      // Another's bytes may have come into it while nobody looked.
      using file = Deno.openSync(`${path}.away`, { write: true });
      file.writeSync(new Uint8Array(MIB).fill(0xa5));
      Deno.renameSync(`${path}.away`, path);
      await second.command("convergeMirror", { volume: "data", timeout_ms: 20_000 });
      assert.ok(told.some(({ type }) => type === "mirror.target-back"));
      await second.command("switchVolume", { volume: "data", timeout_ms: 20_000 });
      await writer.stop();
      await writer.verifyAll();
    }),
});

Deno.test({
  name: "a mirror whose file is gone can be cancelled",
  ...needs,
  fn: () =>
    withoutTarget(async ({ temp, second, writer }) => {
      await second.command("cancelMirror", { volume: "data" });
      assert.equal(await second.command("mirrorStatus", { volume: "data" }), null);
      const names = Array.from(Deno.readDirSync(temp.file("data")), ({ name }) => name);
      assert.deepEqual(names.filter((name) => name.endsWith(".map")), []);
      await writer.stop();
      await writer.verifyAll();
    }),
});
