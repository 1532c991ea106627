import assert from "node:assert/strict";
import { silentLog } from "../../../src/core/mod.ts";
import { DataPlane } from "../../../src/dataplane/mod.ts";
import { openStore } from "../../../src/datastore/mod.ts";
import { run } from "../../support/process.ts";
import { requires } from "../../support/requires.ts";
import { tempDir } from "../../support/temp.ts";
import { readOnlyUri, startStoreProcess, uriOf } from "../../support/store_process.ts";
import { mirrorTerms } from "../../support/mirror_terms.ts";

const MIB = 1 << 20;
const SOURCE_BYTES = 16 * MIB, TARGET_BYTES = 32 * MIB;

Deno.test({
  name:
    "a volume of the embedded store moves to a larger one of a store server, digests and fence and all",
  ...requires({ io_uring: true, commands: ["nbdcopy", "cmp"] }),
  async fn() {
    using temp = tempDir();
    await using server = await startStoreProcess({
      directories: [temp.file("store")],
      listen: "127.0.0.1:0",
      nbd: "127.0.0.1:0",
    });
    const far = server.store;
    const near = openStore("near", { type: "embedded", path: temp.file("near") }, {
      log: silentLog,
    });
    const initial = await near.createVolume({ name: "data", size_bytes: SOURCE_BYTES });
    const plane = await DataPlane.start({
      log: silentLog,
      questions: {
        digests: ({ target, extents }) => far.digests(target, extents),
        promote: async ({ target, epoch, claimant }) => {
          await far.promote(target, epoch, claimant);
          return null;
        },
        storeEpoch: async ({ target }) => (await far.find(target.store_volume))?.epoch ?? 0,
      },
    });
    try {
      await plane.command("serveNbd", { listen: { path: temp.file("nbd.sock") }, fenced: false });
      const directory = temp.file("volume");
      const opened = await plane.command("openVolume", {
        name: "data",
        directory,
        max_size_bytes: TARGET_BYTES,
        initial,
      });
      const { uri } = await plane.command("exportNbd", { name: "data", description: "" });
      Deno.writeFileSync(temp.file("in"), crypto.getRandomValues(new Uint8Array(65_536)));
      await run("nbdcopy", ["--flush", temp.file("in"), uri]);
      const { id, placement } = await far.requestMirror({
        source: { agent: "node-1", volume: "data", size_bytes: SOURCE_BYTES, used_bytes: 65_536 },
        predicted_need: { bytes: 20 * MIB, level: 0.95, at: "2026-01-02T03:04:05Z" },
        size_bytes: TARGET_BYTES,
        deadline: "2026-01-02T03:04:05Z",
        epoch: opened.epoch,
        idempotency_key: "mirror-1",
      });
      await plane.command("startMirror", {
        volume: "data",
        id,
        target: placement,
        terms: mirrorTerms({ write_through_timeout_ms: 1000, resync_interval_ms: 1000 }),
        compare: false,
      });
      const cutover = await plane.command("switchVolume", { volume: "data", timeout_ms: 30_000 });
      assert.equal(cutover.epoch, opened.epoch + 1);
      assert.ok(cutover.digests_checked > 0);
      assert.equal(cutover.digest_mismatches, 0);
      const there = await far.find(placement.store_volume);
      assert.deepEqual([there?.epoch, there?.mirror_request?.state], [cutover.epoch, "promoted"]);
      const status = await plane.command("volumeStatus", { name: "data" });
      assert.deepEqual([status.active, status.size_bytes], [placement, TARGET_BYTES]);
      await run("nbdcopy", [readOnlyUri(uriOf(placement)), temp.file("out")]);
      await run("cmp", ["-n", "65536", temp.file("in"), temp.file("out")]);
      await assert.rejects(far.promote(placement, opened.epoch), { code: "fenced/stale-epoch" });
    } finally {
      await plane.stop();
      near.close();
    }
  },
});
