import assert from "node:assert/strict";
import {
  checkSize,
  decodeRecord,
  encodeRecord,
  madeBefore,
  newMirrorRecord,
  newVolumeRecord,
  promoted,
  type VolumeRecord,
  writerEpoch,
} from "../../../src/datastore/volume_record.ts";
import type { RequestMirror } from "../../../src/datastore/store.ts";

const AT = "2026-01-02T03:04:05.000Z";
const request: RequestMirror = {
  source: { agent: "node-1", volume: "data", size_bytes: 8192, used_bytes: 4096 },
  predicted_need: { bytes: 16_384, level: 0.95, at: AT },
  size_bytes: 16_384,
  deadline: AT,
  epoch: 7,
  idempotency_key: "k",
};

Deno.test("a record reads back as it was written", () => {
  const record = newMirrorRecord(request, "0a1b2c3d", AT);
  assert.deepEqual(decodeRecord(encodeRecord(record), "volume.json"), record);
});

Deno.test("a damaged record or one of a later format is refused with its path", () => {
  const text = encodeRecord(newVolumeRecord({ name: "data", size_bytes: 4096 }, AT));
  for (let length = 0; length < text.length - 2; length++) {
    assert.throws(() => decodeRecord(text.slice(0, length), "/v/volume.json"), {
      code: "io/record",
      message: /\/v\/volume\.json/,
    });
  }
  assert.throws(() => decodeRecord(text.replace('"format": 1', '"format": 2'), "p"), {
    code: "io/record",
  });
});

Deno.test("sizes are rounded up to 4096 and refused out of range", () => {
  assert.equal(checkSize(1), 4096);
  assert.equal(checkSize(4096), 4096);
  assert.equal(checkSize(4097), 8192);
  for (const size of [0, -1, 1.5, NaN, Infinity, 2 ** 50 + 1, 2 ** 53]) {
    assert.throws(() => checkSize(size), { code: "usage/size" }, String(size));
  }
});

Deno.test("a mirror is written with the epoch that it is promoted to", () => {
  const record = newMirrorRecord(request, "0a1b2c3d", AT);
  assert.equal(record.epoch, 7);
  assert.equal(writerEpoch(record), 8);
  const after = promoted(record, 8);
  assert.equal(after.epoch, 8);
  assert.equal(after.mirror?.state, "promoted");
  assert.equal(writerEpoch(after), 8);
  assert.equal(writerEpoch(promoted(after, 9)), 9);
});

Deno.test("promoting to the same epoch changes nothing, to a lower one is refused", () => {
  const record = promoted(newMirrorRecord(request, "0a1b2c3d", AT), 8);
  assert.deepEqual(promoted(record, 8), record);
  assert.throws(() => promoted(record, 7), { code: "fenced/stale-epoch" });
  assert.throws(() => promoted(record, -1), { code: "usage/epoch" });
  assert.throws(() => promoted(record, 8.5), { code: "usage/epoch" });
});

Deno.test("an epoch that was claimed is its claimant's alone, until a higher one", () => {
  const a = { claimant: "a", at: AT }, b = { claimant: "b", at: AT };
  const record = promoted(newMirrorRecord(request, "0a1b2c3d", AT), 8, a);
  assert.deepEqual(promoted(record, 8, { ...a, at: "2027-01-01T00:00:00Z" }), record);
  const refused = { code: "fenced/stale-epoch", message: new RegExp(`already, claimed at ${AT}$`) };
  assert.throws(() => promoted(record, 8, b), refused);
  assert.throws(() => promoted(record, 8), refused);
  assert.deepEqual(promoted(record, 9, b).claim, b);
  assert.equal(promoted(record, 9).claim, undefined);
  assert.throws(() => promoted(promoted(record, 9), 9, b), { code: "fenced/stale-epoch" });
  assert.deepEqual(decodeRecord(encodeRecord(record), "volume.json"), record);
});

Deno.test("a mirror's id keeps the volume's name as far as 64 characters go", () => {
  const volume = "v".repeat(64);
  const record = newMirrorRecord(
    { ...request, source: { ...request.source, volume } },
    "0a1b2c3d",
    AT,
  );
  assert.equal(record.id, `${"v".repeat(55)}-0a1b2c3d`);
});

Deno.test("madeBefore() finds the request of the same key and refuses another one", () => {
  const first = newMirrorRecord(request, "0a1b2c3d", AT);
  const again = newMirrorRecord(request, "ffffffff", AT);
  const other = newMirrorRecord({ ...request, size_bytes: 32_768 }, "ffffffff", AT);
  const records: VolumeRecord[] = [newVolumeRecord({ name: "x", size_bytes: 1 }, AT), first];
  assert.equal(madeBefore(records, again), first);
  assert.throws(() => madeBefore(records, other), { code: "state/idempotency-key" });
  assert.equal(madeBefore(records, newVolumeRecord({ name: "x", size_bytes: 1 }, AT)), undefined);
});
