/** A connection that is negotiated for the kernel's client, with the data plane's own server. */
import { deepEqual, equal, throws } from "node:assert/strict";
import { NBD_FLAG } from "../../../src/codec/mod.ts";
import { silentLog } from "../../../src/core/mod.ts";
import { DataPlane } from "../../../src/dataplane/mod.ts";
import { NbdLine } from "../../../src/sys/nbd_dial.ts";
import { thinPlacement } from "../../support/planes.ts";
import { requires } from "../../support/requires.ts";
import { tempDir } from "../../support/temp.ts";

const MIB = 1024 ** 2;

Deno.test({
  name: "NbdLine enters an export with what the server offers, and no other",
  ...requires({ io_uring: true }),
  async fn() {
    using temp = tempDir();
    const socket = temp.file("nbd.sock");
    const plane = await DataPlane.start({ log: silentLog });
    await using _stop = { [Symbol.asyncDispose]: () => plane.stop() };
    await plane.command("serveNbd", { listen: { path: socket }, fenced: false });
    await plane.command("openVolume", {
      name: "data",
      directory: temp.file("data.d"),
      max_size_bytes: 8 * MIB,
      initial: thinPlacement(temp.file("data"), 8 * MIB),
    });
    await plane.command("exportNbd", { name: "data", description: "" });
    throws(() => new NbdLine(socket, "nothing"), { code: "not-found/export" });
    throws(() => new NbdLine(temp.file("none.sock"), "data"), { code: "sys/errno-2" });
    let inode = "";
    {
      using line = new NbdLine(socket, "data");
      equal(line.sizeBytes, 8 * MIB);
      equal(line.blockBytesMax, MIB);
      const wanted = NBD_FLAG.sendFlush | NBD_FLAG.sendFua | NBD_FLAG.sendTrim;
      equal(line.flags & wanted, wanted);
      inode = line.inode;
      equal(isListed(inode), true, "the kernel lists the socket");
      deepEqual(await plane.command("nbdSessions", { name: "data" }), { sessions: 1 });
    }
    equal(isListed(inode), false, "nobody holds it any more");
  },
});

function isListed(inode: string): boolean {
  return Deno.readTextFileSync("/proc/net/unix").split("\n")
    .some((line) => line.split(/\s+/)[6] === inode);
}
