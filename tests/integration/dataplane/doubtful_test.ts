/** A target that held data before: both sides are compared, and only what differs is sent. */
import assert from "node:assert/strict";
import { silentLog } from "../../../src/core/mod.ts";
import { DataPlane } from "../../../src/dataplane/mod.ts";
import { mirrorTerms } from "../../support/mirror_terms.ts";
import { thinPlacement } from "../../support/planes.ts";
import { requires } from "../../support/requires.ts";
import { tempDir } from "../../support/temp.ts";

const MIB = 2 ** 20, CHUNK = 65_536;

function fill(path: string, at: number, bytes: Uint8Array) {
  using file = Deno.openSync(path, { write: true });
  file.seekSync(at, Deno.SeekMode.Start);
  for (let done = 0; done < bytes.length;) done += file.writeSync(bytes.subarray(done));
}

Deno.test({
  name: "a re-used target gets what differs, holes of the source included, and nothing else",
  ...requires({ io_uring: true }),
  async fn() {
    using temp = tempDir();
    const source = thinPlacement(temp.file("source"), 64 * MIB);
    const target = thinPlacement(temp.file("target"), 64 * MIB);
    const bytes = new Uint8Array(32 * MIB).map((_, index) => index % 251);
    for (const name of ["source", "target"]) fill(temp.file(name), 0, bytes);
    // Of 1024 chunks: nine that differ, and old bytes where the source has a hole.
    for (let n = 0; n < 9; n++) fill(temp.file("target"), (3 + 50 * n) * CHUNK, Uint8Array.of(255));
    fill(temp.file("target"), 48 * MIB + 5, Uint8Array.of(7));
    const plane = await DataPlane.start({ log: silentLog });
    try {
      await plane.command("openVolume", {
        name: "data",
        directory: temp.file("data"),
        max_size_bytes: 64 * MIB,
        initial: source,
      });
      const terms = mirrorTerms();
      const start = { volume: "data", id: "m1", target, terms, compare: true };
      await plane.command("startMirror", start);
      const status = await plane.command("convergeMirror", { volume: "data", timeout_ms: 20_000 });
      assert.equal(status.copied_bytes, 10 * CHUNK);
      assert.equal(status.compared_bytes, 64 * MIB);
      assert.equal(status.equal_bytes, 64 * MIB - 10 * CHUNK);
      await plane.command("cancelMirror", { volume: "data" });
    } finally {
      await plane.stop();
    }
    assert.deepEqual(
      Deno.readFileSync(temp.file("target")),
      Deno.readFileSync(temp.file("source")),
    );
  },
});
