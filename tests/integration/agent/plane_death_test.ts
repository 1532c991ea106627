/** The data plane dies and the agent does not: what is attached must be left to the next agent. */
import { deepEqual, ok, rejects } from "node:assert/strict";
import type { AgentContext } from "../../../src/agent/context.ts";
import { closeUnit } from "../../../src/agent/serving.ts";
import type { VolumeUnit } from "../../../src/agent/volume_unit.ts";
import { silentLog } from "../../../src/core/mod.ts";
import { attachVolume, DataPlane } from "../../../src/dataplane/mod.ts";
import { closeFile, findLoops, removeStale } from "../../../src/sys/mod.ts";
import { thinPlacement } from "../../support/planes.ts";
import { requires } from "../../support/requires.ts";
import { tempDir } from "../../support/temp.ts";

const SIZE_BYTES = 8 << 20;

/** Takes the data plane's ring from under it. */
function breakRings(): void {
  for (const { name } of Deno.readDirSync("/proc/self/fd")) {
    const fd = Number(name);
    try {
      if (Deno.readLinkSync(`/proc/self/fd/${fd}`).includes("io_uring")) closeFile(fd);
    } catch {
      // The listing's own, closed by now.
    }
  }
}

Deno.test({
  name: "agent: a device stays for the next agent when the data plane has died",
  ...requires({ root: true, io_uring: true, fuse: true, loop: true }),
  async fn() {
    using temp = tempDir();
    const directory = temp.file("volume"), volume = "data";
    Deno.mkdirSync(directory);
    const plane = await DataPlane.start({ log: silentLog });
    const initial = thinPlacement(temp.file("image"), SIZE_BYTES);
    const max_size_bytes = SIZE_BYTES;
    try {
      await plane.command("openVolume", { name: volume, directory, max_size_bytes, initial });
      const attachment = await attachVolume({
        plane,
        volume,
        frontend: "fuse",
        device: false,
        directory,
        filesystem: null,
        queueDepth: 64,
        log: silentLog,
      });
      breakRings();
      // It is asked something, so that it looks at its ring again; perhaps it still answers.
      plane.command("volumeStatus", { name: volume }).catch(() => {});
      await rejects(plane.died, { code: "internal/data-plane" });
      ok(plane.ended);
      const unit = { name: volume, attachment, open: true } as VolumeUnit;
      await closeUnit({ plane, log: silentLog } as AgentContext, unit);
      const [exported] = attachment.exports;
      ok(exported?.frontend === "fuse");
      deepEqual(await findLoops(`${directory}/device`), [exported.device]);
    } finally {
      await plane.stop().catch(() => {});
      await removeStale(`${directory}/device`);
    }
  },
});
