/** NBD exports on hosts that are named: the main thread finds their addresses. */
import assert from "node:assert/strict";
import { silentLog } from "../../../src/core/mod.ts";
import { DataPlane } from "../../../src/dataplane/mod.ts";
import { thinPlacement } from "../../support/planes.ts";
import { requires } from "../../support/requires.ts";
import { tempDir } from "../../support/temp.ts";

const SIZE_BYTES = 1 << 20;

const test = (name: string, fn: (plane: DataPlane) => Promise<void>) =>
  Deno.test({
    name,
    ...requires({ io_uring: true }),
    async fn() {
      const plane = await DataPlane.start({ log: silentLog });
      try {
        await fn(plane);
      } finally {
        await plane.stop();
      }
    },
  });

test("an export is reached by the name of its host", async (plane) => {
  using temp = tempDir();
  await plane.command("serveNbd", { listen: { host: "127.0.0.1", port: 0 }, fenced: false });
  await plane.command("openVolume", {
    name: "v",
    directory: temp.file("v.d"),
    max_size_bytes: SIZE_BYTES,
    initial: thinPlacement(temp.file("v"), SIZE_BYTES),
  });
  const { uri } = await plane.command("exportNbd", { name: "v", description: "" });
  // Every machine's own table knows this name, in any case; the client itself knows one way to write it.
  const named = uri.replace("127.0.0.1", "LocalHost");
  const { device, size_bytes } = await plane.command("openDevice", { uri: named });
  assert.equal(size_bytes, SIZE_BYTES);
  await plane.command("writeDevice", { device, at: 4096, bytes: new Uint8Array(512).fill(7) });
  const read = await plane.command("readDevice", { device, at: 4096, length: 512 });
  assert.ok(read.every((byte) => byte === 7));
  await plane.command("closeDevice", { device });
});

test("a name that nobody knows is refused with a hint", async (plane) => {
  await assert.rejects(plane.command("openDevice", { uri: "nbd://no-such-host.invalid/v" }), {
    code: "store/unreachable",
    message: /no-such-host\.invalid: its name has no address/,
    hint: /getent hosts/,
  });
});
