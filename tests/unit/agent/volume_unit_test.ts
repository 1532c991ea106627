/** One piece of work at a time on a volume. */
import { equal, rejects } from "node:assert/strict";
import { parseConfig } from "../../../src/agent/config.ts";
import { VolumeUnit } from "../../../src/agent/volume_unit.ts";
import { need } from "../../../src/core/mod.ts";

Deno.test("exclusively() refuses a second piece of work by name, and takes one when the first has ended", async () => {
  const { config } = parseConfig("volumes: { fs1: { size: 1GiB } }", "/");
  const unit = new VolumeUnit(need(config?.volumes["fs1"], "the volume"), "/d");
  const { promise, resolve } = Promise.withResolvers<void>();
  const first = unit.exclusively("attach", () => promise);
  const second = () => unit.exclusively("scale", () => Promise.resolve("done"));
  await rejects(second(), {
    code: "state/busy",
    message: "Cannot scale fs1: attach is under way",
  });
  resolve();
  await first;
  equal(await second(), "done");
});
