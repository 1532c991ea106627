/** Verifies by the data plane's commands: of a frozen backup with digests of itself, and over a restart. */
import assert from "node:assert/strict";
import { silentLog } from "../../../src/core/mod.ts";
import {
  DataPlane,
  type DataPlaneEvent,
  type Placement,
  type VerifyStatus,
} from "../../../src/dataplane/mod.ts";
import { mirrorTerms } from "../../support/mirror_terms.ts";
import { flipBit } from "../../support/mirrored_volume.ts";
import { FarStore, thinPlacement } from "../../support/planes.ts";
import { waitUntil } from "../../support/process.ts";
import { requires } from "../../support/requires.ts";
import { type TempDir, tempDir } from "../../support/temp.ts";

const needs = requires({ io_uring: true });
const MIB = 2 ** 20, EXTENT = 256 * 1024;
const SIZE = 6 * MIB;

type Side = VerifyStatus["side"];

interface Opened extends AsyncDisposable {
  readonly plane: DataPlane;
  readonly events: DataPlaneEvent[];
}

/** A data plane with the volume open, as one process of the agent would have it. */
async function open(temp: TempDir, far: FarStore, initial?: Placement): Promise<Opened> {
  const events: DataPlaneEvent[] = [];
  const plane = await DataPlane.start({
    log: silentLog,
    questions: far.questions,
    onEvent: (event) => void events.push(event),
  });
  await plane.command("openVolume", {
    name: "data",
    directory: temp.file("data"),
    max_size_bytes: 64 * MIB,
    ...(initial ? { initial } : {}),
  });
  return { plane, events, [Symbol.asyncDispose]: () => plane.stop() };
}

function writtenPlace(temp: TempDir): Placement {
  const path = temp.file("first"), place = thinPlacement(path, SIZE);
  using file = Deno.openSync(path, { write: true });
  const bytes = Uint8Array.from({ length: 3 * MIB }, (_, at) => (at >> 8) & 255);
  for (let at = 0; at < bytes.length;) at += file.writeSync(bytes.subarray(at));
  return place;
}

async function startMirror({ plane }: Opened, far: FarStore): Promise<void> {
  await plane.command("startMirror", {
    volume: "data",
    id: "m1",
    target: await far.create("v1", 8 * MIB, 2),
    terms: mirrorTerms(),
    compare: false,
  });
}

function begin(
  { plane }: Opened,
  side: Side,
  id: string,
  max_rate_bytes_per_s: number | null = null,
): Promise<VerifyStatus> {
  return plane.command("beginVerify", {
    volume: "data",
    side,
    id,
    max_rate_bytes_per_s,
    resume: false,
  });
}

function statusOf({ plane }: Opened, side: Side): Promise<VerifyStatus | null> {
  return plane.command("verifyStatus", { volume: "data", side });
}

function done(opened: Opened, side: Side): Promise<VerifyStatus> {
  return waitUntil(async () => {
    const status = await statusOf(opened, side);
    return status?.state === "done" ? status : undefined;
  }, { what: "the end of the verify" });
}

Deno.test({
  name:
    "a frozen backup is recorded once, then every bit that rots in it is found, also after a restart",
  ...needs,
  async fn() {
    using temp = tempDir();
    await using far = await FarStore.start(temp);
    {
      await using opened = await open(temp, far, writtenPlace(temp));
      await assert.rejects(begin(opened, "backup", "op-0"), { code: "state/no-backup" });
      await startMirror(opened, far);
      await opened.plane.command("switchVolume", { volume: "data", timeout_ms: 20_000 });
      await begin(opened, "backup", "op-1");
      const first = await done(opened, "backup");
      assert.deepEqual([first.recorded_bytes, first.equal_bytes], [SIZE, 0]);
      await begin(opened, "backup", "op-2");
      assert.equal((await done(opened, "backup")).equal_bytes, SIZE);
    }
    flipBit(temp.file("first"), 5 * EXTENT + 99);
    await using opened = await open(temp, far);
    await begin(opened, "backup", "op-3");
    const rotten = await done(opened, "backup");
    assert.deepEqual(rotten.mismatches, [{ at: 5 * EXTENT, length: EXTENT }]);
    assert.deepEqual([rotten.equal_bytes, rotten.recorded_bytes], [SIZE - EXTENT, 0]);
    await waitUntil(() => opened.events.some(({ type }) => type === "backup.verify-ended"), {
      what: "the event",
    });
    assert.ok(opened.events.some(({ type }) => type === "backup.verify-mismatch"));
    await opened.plane.command("retireBackup", { volume: "data" });
    await assert.rejects(begin(opened, "backup", "op-4"), { code: "state/no-backup" });
  },
});

Deno.test({
  name: "a backup whose list of digests is damaged is recorded anew, never compared with nonsense",
  ...needs,
  async fn() {
    using temp = tempDir();
    await using far = await FarStore.start(temp);
    await using opened = await open(temp, far, writtenPlace(temp));
    await startMirror(opened, far);
    await opened.plane.command("switchVolume", { volume: "data", timeout_ms: 20_000 });
    await begin(opened, "backup", "op-1");
    await done(opened, "backup");
    flipBit(temp.file("data/backup.digests"), 600);
    await begin(opened, "backup", "op-2");
    const again = await done(opened, "backup");
    assert.deepEqual([again.recorded_bytes, again.mismatches], [SIZE, []]);
  },
});

Deno.test({
  name:
    "a verify that runs when its volume is closed goes on where it was; a second one is refused",
  ...needs,
  async fn() {
    using temp = tempDir();
    await using far = await FarStore.start(temp);
    let before: VerifyStatus | null;
    {
      await using opened = await open(temp, far, writtenPlace(temp));
      await assert.rejects(begin(opened, "mirror", "op-0"), { code: "state/no-mirror" });
      await startMirror(opened, far);
      await begin(opened, "mirror", "op-1", 128 * 1024);
      await assert.rejects(begin(opened, "mirror", "op-2"), { code: "state/verify" });
      await assert.rejects(begin(opened, "backup", "op-2"), { code: "state/verify" });
      assert.equal((await begin(opened, "mirror", "op-1")).id, "op-1");
      before = await waitUntil(async () => {
        const status = await statusOf(opened, "mirror");
        return status !== null && status.done_bytes > 0 ? status : undefined;
      }, { what: "a beginning" });
    }
    await using opened = await open(temp, far);
    const after = await statusOf(opened, "mirror");
    assert.deepEqual([after?.id, after?.state], ["op-1", "running"]);
    assert.ok((after?.done_bytes ?? 0) >= before.done_bytes, `${after?.done_bytes}`);
    const stopped = await opened.plane.command("stopVerify", { volume: "data" });
    assert.equal(stopped.state, "stopped");
    await opened.plane.command("cancelMirror", { volume: "data" });
    await assert.rejects(begin(opened, "mirror", "op-3"), { code: "state/no-mirror" });
    await assert.rejects(opened.plane.command("stopVerify", { volume: "data" }), {
      code: "state/no-verify",
    });
  },
});
