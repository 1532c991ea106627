/** A volume has one owner: who comes second, from the same directory or from a copy of it, is told so. */
import assert from "node:assert/strict";
import { silentLog } from "../../../src/core/mod.ts";
import { atEpoch, decodeManifest, encodeManifest } from "../../../src/codec/mod.ts";
import {
  DataPlane,
  type DataPlaneEvent,
  type Placement,
  type VolumeStatus,
} from "../../../src/dataplane/mod.ts";
import { FarStore, thinPlacement } from "../../support/planes.ts";
import { waitUntil } from "../../support/process.ts";
import { requires } from "../../support/requires.ts";
import { type TempDir, tempDir } from "../../support/temp.ts";

const SIZE_BYTES = 1 << 20;
const needs = requires({ io_uring: true });

function open(plane: DataPlane, temp: TempDir, directory: string, initial: Placement) {
  return plane.command("openVolume", {
    name: "data",
    directory: temp.file(directory),
    max_size_bytes: SIZE_BYTES,
    initial,
  });
}

async function twoPlanes(
  body: (first: DataPlane, second: DataPlane, temp: TempDir) => Promise<void>,
): Promise<void> {
  using temp = tempDir();
  const [first, second] = await Promise.all([
    DataPlane.start({ log: silentLog }),
    DataPlane.start({ log: silentLog }),
  ]);
  try {
    await body(first, second, temp);
  } finally {
    await Promise.all([first.stop(), second.stop()]);
  }
}

Deno.test({
  name: "a volume's directory is served by one data plane, and by the next once that has let go",
  ...needs,
  fn: () =>
    twoPlanes(async (first, second, temp) => {
      const initial = thinPlacement(temp.file("bytes"), SIZE_BYTES);
      await open(first, temp, "v", initial);
      await assert.rejects(open(second, temp, "v", initial), {
        code: "state/in-use",
        message: `Cannot open volume data: process ${Deno.pid} serves it`,
      });
      await first.command("closeVolume", { name: "data" });
      assert.equal((await open(second, temp, "v", initial)).size_bytes, SIZE_BYTES);
    }),
});

Deno.test({
  name: "a data plane that waits for a volume gets it when the other lets go",
  ...needs,
  fn: () =>
    twoPlanes(async (first, second, temp) => {
      const initial = thinPlacement(temp.file("bytes"), SIZE_BYTES);
      await open(first, temp, "v", initial);
      const waiting = open(second, temp, "v", initial);
      await first.command("closeVolume", { name: "data" });
      assert.equal((await waiting).size_bytes, SIZE_BYTES);
    }),
});

Deno.test({
  name: "a copied directory that names the same file is refused while the file is in use",
  ...needs,
  fn: () =>
    twoPlanes(async (first, second, temp) => {
      const initial = thinPlacement(temp.file("bytes"), SIZE_BYTES);
      await open(first, temp, "v", initial);
      Deno.mkdirSync(temp.file("copy"));
      Deno.copyFileSync(`${temp.file("v")}/manifest`, `${temp.file("copy")}/manifest`);
      await assert.rejects(open(second, temp, "copy", initial), {
        code: "state/in-use",
        message: new RegExp(`^Cannot use ${temp.file("bytes")}: process ${Deno.pid} uses it`),
      });
      await first.command("closeVolume", { name: "data" });
      await open(second, temp, "copy", initial);
    }),
});

/** A volume at a store that fences, its first owner's directory copied, and both planes able to ask the store. */
async function copiedAgents(
  body: (
    agents: {
      older: DataPlane;
      newer: DataPlane;
      /** What happened to the older one. */
      events: DataPlaneEvent[];
      far: FarStore;
      openOlder: () => Promise<VolumeStatus>;
      openNewer: () => Promise<VolumeStatus>;
    },
    temp: TempDir,
  ) => Promise<void>,
): Promise<void> {
  using temp = tempDir();
  await using far = await FarStore.start(temp);
  const { questions } = far, events: DataPlaneEvent[] = [];
  const [older, newer] = await Promise.all([
    DataPlane.start({ log: silentLog, questions, onEvent: (event) => events.push(event) }),
    DataPlane.start({ log: silentLog, questions }),
  ]);
  try {
    const initial = await far.create("data", SIZE_BYTES, 1);
    const openOlder = () => open(older, temp, "v", initial);
    await openOlder();
    Deno.mkdirSync(temp.file("copy"));
    Deno.copyFileSync(`${temp.file("v")}/manifest`, `${temp.file("copy")}/manifest`);
    const openNewer = () => open(newer, temp, "copy", initial);
    await body({ older, newer, events, far, openOlder, openNewer }, temp);
  } finally {
    await Promise.all([older.stop(), newer.stop()]);
  }
}

/** A client of a plane's own NBD server, without its store's. */
async function clientOf(plane: DataPlane, path: string): Promise<NbdClient> {
  await plane.command("serveNbd", { listen: { path }, fenced: false });
  const { uri } = await plane.command("exportNbd", { name: "data", description: "data" });
  const { device } = await plane.command("openDevice", { uri });
  const bytes = (fill: number) => new Uint8Array(4096).fill(fill);
  return {
    write: (fill) => plane.command("writeDevice", { device, at: 0, bytes: bytes(fill) }),
    read: async () =>
      new Uint8Array(await plane.command("readDevice", { device, at: 0, length: 1 }))[0],
  };
}

interface NbdClient {
  write(fill: number): Promise<null>;
  read(): Promise<number | undefined>;
}

Deno.test({
  name:
    "of two agents with one state directory the later one holds the volume, the older stops for good",
  ...needs,
  fn: () =>
    copiedAgents(async ({ older, newer, events, openOlder, openNewer }, temp) => {
      const before = await clientOf(older, temp.file("older.sock"));
      await before.write(1);
      const opened = await openNewer();
      assert.equal(opened.epoch, 3);
      const after = await clientOf(newer, temp.file("newer.sock"));
      assert.equal(await after.read(), 1);
      await after.write(2);
      // A cut connection says so only when it is used.
      await assert.rejects(before.write(3));
      await waitUntil(() => events.some(({ type }) => type === "volume.fenced"), {
        what: "the event",
      });
      await assert.rejects(before.write(4));
      assert.equal(await after.read(), 2);
      const [old, now] = await Promise.all(
        [older, newer].map((plane) => plane.command("volumeStatus", { name: "data" })),
      );
      assert.deepEqual([old?.fenced, old?.connected, old?.epoch], [true, false, 2]);
      assert.deepEqual([now?.fenced, now?.connected, now?.epoch], [false, true, 3]);

      await older.command("closeVolume", { name: "data" });
      const refused = {
        code: "fenced/claimed",
        message: /^Cannot open volume data: another agent holds it, and split brain is possible/,
      };
      // As often as it tries.
      for (let i = 0; i < 3; i++) await assert.rejects(openOlder(), refused);
      await after.write(5);
      assert.equal(await after.read(), 5);
    }),
});

Deno.test({
  name: "a claim that was cut short is gone on with by its agent, and refused to the other",
  ...needs,
  fn: () =>
    copiedAgents(async ({ older, far, openOlder, openNewer }, temp) => {
      await older.command("closeVolume", { name: "data" });
      // As a kill between the store's step and the commit leaves it.
      const path = `${temp.file("v")}/manifest`;
      const manifest = decodeManifest(Deno.readFileSync(path), path);
      const prepare = { epoch: 3, to: atEpoch(manifest.active, 3), claimant: "older" };
      Deno.writeFileSync(path, encodeManifest({ ...manifest, prepare }));
      await far.questions.promote({ target: prepare.to, epoch: 3, claimant: "older" });

      await assert.rejects(openNewer(), { code: "fenced/claimed" });
      assert.equal((await openOlder()).epoch, 4);
    }),
});

Deno.test({
  name: "a volume is claimed back by order only, and only from another that has taken it over",
  ...needs,
  fn: () =>
    copiedAgents(async ({ older, newer, events, openOlder, openNewer }, temp) => {
      const order = { name: "data", directory: temp.file("v") };
      await assert.rejects(older.command("claimVolume", order), { code: "state/open" });
      await older.command("closeVolume", { name: "data" });
      await assert.rejects(older.command("claimVolume", order), { code: "state/not-fenced" });
      await openNewer();
      const after = await clientOf(newer, temp.file("newer.sock"));
      await after.write(2);
      await assert.rejects(openOlder(), { code: "fenced/claimed" });

      assert.deepEqual(await older.command("claimVolume", order), { epoch: 3 });
      assert.equal((await openOlder()).epoch, 4);
      const before = await clientOf(older, temp.file("older.sock"));
      assert.equal(await before.read(), 2);
      await before.write(6);
      await assert.rejects(after.write(7));
      assert.equal(await before.read(), 6);
      assert.ok(!events.some(({ type }) => type === "volume.fenced"));
    }),
});
