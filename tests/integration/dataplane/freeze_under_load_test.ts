/** A backup at a store that is frozen while the application writes: it is of one moment, and says so. */
import assert from "node:assert/strict";
import { seededRng, silentLog } from "../../../src/core/mod.ts";
import { DataPlane } from "../../../src/dataplane/mod.ts";
import { DeviceWriter } from "../../support/device_writer.ts";
import { mirrorTerms } from "../../support/mirror_terms.ts";
import { FarStore, serveVolume } from "../../support/planes.ts";
import { requires } from "../../support/requires.ts";
import { tempDir } from "../../support/temp.ts";

const SIZE_BYTES = 4 * 2 ** 20, WRITERS = 8;
const needs = requires({ io_uring: true });

async function freeze(mode: "sync" | "async"): Promise<void> {
  using temp = tempDir();
  await using far = await FarStore.start(temp);
  const agent = await DataPlane.start({ log: silentLog, questions: far.questions });
  const application = await DataPlane.start({ log: silentLog });
  try {
    const uri = await serveVolume(agent, temp, {
      max_size_bytes: 16 * SIZE_BYTES,
      initial: await far.create("first", SIZE_BYTES, 1),
    });
    const writer = await DeviceWriter.open(application, uri, seededRng(11));
    writer.start(WRITERS);
    const { epoch } = await agent.command("volumeStatus", { name: "data" });
    const target = await far.create("second", SIZE_BYTES, epoch + 1), terms = mirrorTerms();
    await agent.command("startMirror", { volume: "data", id: "m1", target, terms, compare: false });
    await agent.command("switchVolume", {
      volume: "data",
      timeout_ms: 20_000,
      backup: { mode, terms, failover_after_ms: 3000 },
    });
    await agent.command("freezeBackup", { volume: "data", reason: "asked for" });
    const { backup_status } = await agent.command("volumeStatus", { name: "data" });
    await writer.stop();
    assert.equal(backup_status?.complete, true);
  } finally {
    await application.stop();
    await agent.stop();
  }
}

for (const mode of ["sync", "async"] as const) {
  Deno.test({
    name: `a backup followed ${mode} is frozen complete while the application writes`,
    ...needs,
    fn: () => freeze(mode),
  });
}
