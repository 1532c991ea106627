/** A volume whose store has let a newer writer in: it stops at once, for good, and says so. */
import assert from "node:assert/strict";
import { silentLog } from "../../../src/core/mod.ts";
import { DataPlane, type DataPlaneEvent } from "../../../src/dataplane/mod.ts";
import { FarStore } from "../../support/planes.ts";
import { waitUntil } from "../../support/process.ts";
import { requires } from "../../support/requires.ts";
import { tempDir } from "../../support/temp.ts";

Deno.test({
  name: "a volume that its store has fenced says so, and is no store that is merely away",
  ...requires({ io_uring: true }),
  async fn() {
    using temp = tempDir();
    await using far = await FarStore.start(temp);
    const initial = await far.create("data", 1 << 20, 1);
    const events: DataPlaneEvent[] = [];
    const plane = await DataPlane.start({
      log: silentLog,
      onEvent: (one) => events.push(one),
      questions: far.questions,
    });
    await using _stop = { [Symbol.asyncDispose]: () => plane.stop() };
    const opened = await plane.command("openVolume", {
      name: "data",
      directory: temp.file("near.d"),
      max_size_bytes: 1 << 20,
      initial,
    });
    assert.deepEqual([opened.connected, opened.fenced], [true, false]);
    await far.plane.command("promote", { name: "data", epoch: 3 });
    await waitUntil(() => events.some(({ type }) => type === "nbd.fenced"), { what: "the fence" });
    const { connected, fenced } = await plane.command("volumeStatus", { name: "data" });
    assert.deepEqual([connected, fenced], [false, true]);
  },
});
