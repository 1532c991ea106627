/**
 * A power loss of the node, with real files: what the disk may hold afterwards is put in their place. The log is
 * as it was at that moment, for it is written durably; of the maps nothing that was marked since the last cycle of
 * cooling has reached the disk, and they are another boot's.
 */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { silentLog } from "../../../src/core/mod.ts";
import {
  decodeChangeMapHeader,
  decodeIntentLog,
  encodeChangeMapHeader,
} from "../../../src/codec/mod.ts";
import { decodeUnverifiedHeader, encodeUnverifiedHeader } from "../../../src/codec/mod.ts";
import { DataPlane } from "../../../src/dataplane/mod.ts";
import type { MirrorTerms } from "../../../src/volume/mod.ts";
import { mirrorTerms } from "../../support/mirror_terms.ts";
import { thinPlacement } from "../../support/planes.ts";
import { waitUntil } from "../../support/process.ts";
import { requires } from "../../support/requires.ts";
import { type TempDir, tempDir } from "../../support/temp.ts";

const MIB = 2 ** 20, CHUNK = 65_536, BLOCK = 4096;
const SIZE = 1024 * MIB, FILLED = 48 * MIB, REGION = 4 * MIB;
/** One write each, in three regions of which one held nothing. */
const WRITTEN_AT = [5 * MIB, 30 * MIB + 3 * BLOCK, 700 * MIB];
const ANOTHER_BOOT = "another boot";

async function openData(temp: TempDir): Promise<{ plane: DataPlane; uri: string }> {
  const plane = await DataPlane.start({ log: silentLog });
  await plane.command("serveNbd", { listen: { path: temp.file("a.sock") }, fenced: false });
  await plane.command("openVolume", {
    name: "data",
    directory: temp.file("data"),
    max_size_bytes: SIZE,
    initial: {
      store: "local",
      store_volume: "source",
      size_bytes: SIZE,
      backend: { type: "file", path: temp.file("source") },
    },
  });
  const { uri } = await plane.command("exportNbd", { name: "data", description: "test" });
  return { plane, uri };
}

function hotRanges(temp: TempDir): { at: number; length: number }[] | undefined {
  return decodeIntentLog(Deno.readFileSync(temp.file("data/m1.intent")))?.last.runs.map((run) => ({
    at: run.first * REGION,
    length: run.count * REGION,
  }));
}

async function isCold(plane: DataPlane, temp: TempDir): Promise<boolean> {
  const status = await plane.command("mirrorStatus", { volume: "data" });
  return status?.rounds !== 0 && hotRanges(temp)?.length === 0;
}

/** Mirrors, pauses the mirror, writes a little, and leaves behind what a power loss right then may leave. */
async function losePower(temp: TempDir, terms: MirrorTerms): Promise<void> {
  thinPlacement(temp.file("source"), SIZE);
  const target = thinPlacement(temp.file("target"), SIZE);
  {
    using file = Deno.openSync(temp.file("source"), { write: true });
    for (let at = 0; at < FILLED; at += MIB) file.writeSync(new Uint8Array(MIB).fill(at / MIB + 1));
  }
  const { plane, uri } = await openData(temp);
  const files = ["m1.map", "m1.unverified"].map((name) => temp.file(`data/${name}`));
  let log: Uint8Array | undefined, maps: Uint8Array[];
  try {
    await plane.command("startMirror", { volume: "data", id: "m1", target, terms, compare: false });
    const mirrored = terms.durability === "power"
      ? () => isCold(plane, temp)
      : async () => (await plane.command("mirrorStatus", { volume: "data" }))?.rounds !== 0;
    await waitUntil(mirrored, { what: "the mirror to have everything" });
    await plane.command("pauseMirror", { volume: "data" });
    maps = files.map((path) => Deno.readFileSync(path));
    const { device } = await plane.command("openDevice", { uri });
    for (const at of WRITTEN_AT) {
      await plane.command("writeDevice", { device, at, bytes: new Uint8Array(BLOCK).fill(0xee) });
    }
    if (terms.durability === "power") log = Deno.readFileSync(temp.file("data/m1.intent"));
    await plane.command("closeDevice", { device });
  } finally {
    await plane.stop();
  }
  const [map, unverified] = maps as [Uint8Array, Uint8Array];
  map.set(encodeChangeMapHeader({ ...decodeChangeMapHeader(map), boot_id: ANOTHER_BOOT }));
  unverified.set(
    encodeUnverifiedHeader({ ...decodeUnverifiedHeader(unverified), boot_id: ANOTHER_BOOT }),
  );
  files.forEach((path, i) => Deno.writeFileSync(path, maps[i] as Uint8Array));
  if (log) Deno.writeFileSync(temp.file("data/m1.intent"), log);
}

/** @returns status right after the volume was opened, and when the mirror was ready. */
async function comeBack(temp: TempDir) {
  const { plane } = await openData(temp);
  try {
    const opened = await plane.command("mirrorStatus", { volume: "data" });
    await plane.command("resumeMirror", { volume: "data" });
    const ready = await plane.command("convergeMirror", { volume: "data", timeout_ms: 60_000 });
    return { opened, ready };
  } finally {
    await plane.stop();
  }
}

function assertEqualSides(temp: TempDir): void {
  using source = Deno.openSync(temp.file("source")), target = Deno.openSync(temp.file("target"));
  for (let at = 0; at < SIZE; at += MIB) {
    const [one, other] = [new Uint8Array(MIB), new Uint8Array(MIB)];
    source.readSync(one);
    target.readSync(other);
    assert.ok(Buffer.compare(one, other) === 0, `the sides differ in the MiB at ${at}`);
  }
}

Deno.test({
  name: "after a power loss only what was hot is compared, and nothing that was written is missing",
  ...requires({ io_uring: true }),
  async fn() {
    using temp = tempDir();
    await losePower(temp, mirrorTerms());
    const hot = hotRanges(temp) ?? [];
    assert.deepEqual(hot.map(({ at }) => at), [4 * MIB, 28 * MIB, 700 * MIB]);
    const { opened, ready } = await comeBack(temp);
    assert.equal(opened?.dirty_bytes, WRITTEN_AT.length * REGION);
    assert.equal(opened?.digests.unverified_bytes, WRITTEN_AT.length * REGION);
    assert.equal(ready.compared_bytes, WRITTEN_AT.length * REGION);
    assert.equal(ready.copied_bytes, WRITTEN_AT.length * CHUNK);
    assertEqualSides(temp);
  },
});

Deno.test({
  name:
    "after a power loss a mirror with durability process compares all, and lacks nothing either",
  ...requires({ io_uring: true }),
  async fn() {
    using temp = tempDir();
    await losePower(temp, mirrorTerms({ durability: "process" }));
    const { ready } = await comeBack(temp);
    assert.equal(ready.compared_bytes, SIZE);
    assert.equal(ready.copied_bytes, WRITTEN_AT.length * CHUNK);
    assertEqualSides(temp);
  },
});
