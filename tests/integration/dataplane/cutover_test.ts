/**
 * Cutovers of the real data plane, from store to store over NBD, under an application that verifies.
 * `deno task test:cutovers` does it more often.
 */
import assert from "node:assert/strict";
import { seededRng, silentLog, systemRng } from "../../../src/core/mod.ts";
import { DataPlane, type DataPlaneEvent } from "../../../src/dataplane/mod.ts";
import { DeviceWriter } from "../../support/device_writer.ts";
import { FarStore, serveVolume, thinPlacement } from "../../support/planes.ts";
import { waitUntil } from "../../support/process.ts";
import { requires } from "../../support/requires.ts";
import { tempDir } from "../../support/temp.ts";
import { mirrorTerms } from "../../support/mirror_terms.ts";

const ROUNDS = Number(Deno.env.get("PSMA_CUTOVERS") ?? 20);
const SEED = Number(Deno.env.get("PSMA_SEED") ?? systemRng.below(2 ** 32));
const MIB = 2 ** 20;

Deno.test({
  name: `switchVolume ${ROUNDS} times in a row over NBD under a verifying random writer`,
  ...requires({ io_uring: true }),
  async fn() {
    using temp = tempDir();
    await using far = await FarStore.start(temp);
    const measured: DataPlaneEvent[] = [];
    const agent = await DataPlane.start({
      log: silentLog,
      questions: far.questions,
      onEvent: (event) => void (event.type === "cutover.measured" && measured.push(event)),
    });
    const application = await DataPlane.start({ log: silentLog });
    try {
      const uri = await serveVolume(agent, temp, {
        max_size_bytes: 1024 * MIB,
        initial: thinPlacement(temp.file("first"), 8 * MIB),
      });
      const writer = await DeviceWriter.open(application, uri, seededRng(SEED));
      writer.start(16);
      for (let round = 1; round <= ROUNDS; round++) {
        await agent.command("startMirror", {
          volume: "data",
          id: `m${round}`,
          target: await far.create(`v${round}`, (8 + round) * MIB, round + 1),
          terms: mirrorTerms(),
          compare: false,
        });
        const report = await agent.command("switchVolume", { volume: "data", timeout_ms: 30_000 });
        assert.equal(report.epoch, round + 1, `seed ${SEED}`);
        assert.equal(report.io_errors, 0, `seed ${SEED}`);
        assert.equal(report.digest_mismatches, 0, `seed ${SEED}`);
        assert.equal(far.promoted.get(`v${round}`), round + 1);
      }
      // The last window is open for a second after the last commit, the writer still at work.
      await waitUntil(() => measured.length === ROUNDS, { what: "every cutover's measure" });
      await writer.stop();
      await writer.verifyAll();
      await writer.close();
      const status = await agent.command("volumeStatus", { name: "data" });
      assert.equal(status.size_bytes, (8 + ROUNDS) * MIB);
      assert.equal(status.last_cutover?.epoch, ROUNDS + 1);
      assert.equal(status.last_cutover.io_errors, 0, `seed ${SEED}`);
      assert.ok(status.last_cutover.latency_us.window_max > 0);
      assert.deepEqual(measured.map(({ data }) => data?.["io_errors"]), Array(ROUNDS).fill(0));
      assert.ok(writer.writes > 10 * ROUNDS, `${writer.writes} writes, seed ${SEED}`);
    } finally {
      await application.stop();
      await agent.stop();
    }
  },
});
