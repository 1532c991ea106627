/** A volume has one owner: who comes second, from the same directory or from a copy of it, is told so. */
import assert from "node:assert/strict";
import { silentLog } from "../../../src/core/mod.ts";
import { DataPlane, type Placement } from "../../../src/dataplane/mod.ts";
import { thinPlacement } from "../../support/planes.ts";
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
