/** What the client makes durable by a flush, because the server has no FUA, against a server that dies in between. */
import assert from "node:assert/strict";
import { nbdkit, uriOf } from "../../support/nbd_peers.ts";
import { NbdProcess } from "../../support/nbd_process.ts";
import { waitUntil } from "../../support/process.ts";
import { requires } from "../../support/requires.ts";
import { tempDir } from "../../support/temp.ts";

const MIB = 1 << 20, PIECE_BYTES = 65_536;

Deno.test({
  name: "a durable write is written again when the server died before it was flushed",
  ...requires({ commands: ["nbdkit"], io_uring: true }),
  async fn() {
    using temp = tempDir();
    const log = temp.file("log"), socket = temp.file("kit.sock");
    /** A server that tells what it was asked, in order. */
    const server = (flush: string) =>
      nbdkit(socket, [
        "--filter=blocksize-policy",
        "eval",
        `get_size=echo ${MIB}`,
        `pwrite=cat > ${temp.file("bytes")}; echo write $4 >> ${log}`,
        `flush=echo flush >> ${log}; ${flush}`,
        "pread=head -c $3 /dev/zero",
        "can_write=exit 0",
        "can_flush=exit 0",
        "can_fua=echo none",
        `blocksize-maximum=${PIECE_BYTES}`,
        "blocksize-preferred=4K",
        "blocksize-minimum=1",
      ]);
    const told = async () => (await Deno.readTextFile(log)).trim().split("\n");
    await Deno.writeTextFile(log, "");
    await using process = await NbdProcess.start({ slots: 8 });
    const first = await server("while kill -0 $PPID; do sleep 0.05; done");
    const { client } = await process.call("open", { uri: uriOf(socket), policy: "hold" });
    const writing = process.call("run", {
      client,
      operations: [{ code: "write", at: 0, length: 2 * PIECE_BYTES, fill: 7, fua: true }],
    });
    await waitUntil(async () => (await told()).at(-1) === "flush", { what: "the flush" });
    await first.end("SIGKILL");
    await Deno.writeTextFile(log, "");
    await using _second = await server("true");
    const { results } = await writing;
    assert.deepEqual(results.map(({ errno }) => errno), [0]);
    assert.deepEqual(await told(), ["write 0", `write ${PIECE_BYTES}`, "flush"]);
    await process.call("closeClient", { client });
  },
});
