/** The relay between its two sockets: slow readers, half-closed streams, and the death of its thread. */
import { deepEqual, equal, ok } from "node:assert/strict";
import { createServer, type Server, type Socket } from "node:net";
import { join } from "../../../src/dataplane/tls/relay_join.ts";
import { makeCertificates } from "../../support/certificates.ts";
import { run, waitUntil } from "../../support/process.ts";
import { requires } from "../../support/requires.ts";
import { type TempDir, tempDir } from "../../support/temp.ts";
import { serveByTls } from "../../support/tls_plane.ts";

const MIB = 1024 * 1024;

interface Joined extends Disposable {
  readonly one: Deno.Conn;
  readonly other: Deno.Conn;
  /** When both joined sockets are closed. */
  readonly closed: Promise<void>;
}

/** Two clients whose sockets are joined behind their backs. */
async function joined(temp: TempDir): Promise<Joined> {
  const sockets: Socket[] = [];
  const two = Promise.withResolvers<void>();
  const server: Server = createServer({ allowHalfOpen: true, pauseOnConnect: true }, (socket) => {
    socket.on("error", () => {});
    if (sockets.push(socket) === 2) two.resolve();
  });
  const path = temp.file("s");
  await new Promise<void>((resolve) => server.listen(path, resolve));
  const one = await Deno.connect({ transport: "unix", path });
  const other = await Deno.connect({ transport: "unix", path });
  await two.promise;
  server.close();
  const closed = join(sockets[0] as Socket, sockets[1] as Socket);
  return {
    one,
    other,
    closed,
    [Symbol.dispose]() {
      for (const end of [one, other]) {
        try {
          end.close();
        } catch (error) {
          if (!(error instanceof Deno.errors.BadResource)) throw error;
        }
      }
    },
  };
}

async function readAll(from: Deno.Conn): Promise<number> {
  const bytes = new Uint8Array(65536);
  let length = 0;
  for (;;) {
    const count = await from.read(bytes);
    if (count === null) return length;
    length += count;
  }
}

Deno.test("join() stops a sender whose reader does not read, and loses nothing", async () => {
  using temp = tempDir();
  using pair = await joined(temp);
  const piece = new Uint8Array(65536);
  let sent = 0, ended = false;
  const sending = (async () => {
    while (sent < 64 * MIB) sent += await pair.one.write(piece);
    await pair.one.closeWrite();
    ended = true;
  })();
  // What is sent has stopped growing when it is the same for a while.
  let before = -1, same = 0;
  await waitUntil(() => {
    same = sent === before ? same + 1 : 0;
    before = sent;
    return same > 20;
  }, { what: "the sender to be stopped" });
  ok(!ended && sent < 8 * MIB, `${sent} bytes were taken for a reader that reads none`);
  const length = await readAll(pair.other);
  await sending;
  equal(length, sent);
});

Deno.test("join() passes one end on and lets the other direction go on", async () => {
  using temp = tempDir();
  using pair = await joined(temp);
  await pair.one.write(new TextEncoder().encode("ask"));
  await pair.one.closeWrite();
  equal(await readAll(pair.other), 3);
  const answer = new Uint8Array(3 * MIB);
  const reading = readAll(pair.one);
  for (let at = 0; at < answer.length;) at += await pair.other.write(answer.subarray(at));
  await pair.other.closeWrite();
  equal(await reading, answer.length);
  await pair.closed;
});

Deno.test("join() ends both when one breaks off", async () => {
  using temp = tempDir();
  using pair = await joined(temp);
  await pair.one.write(new Uint8Array(MIB / 8));
  pair.other.close();
  await pair.closed;
  equal(await pair.one.read(new Uint8Array(1)).catch(() => null), null);
});

Deno.test({
  name: "a relay whose thread dies is back with its listeners and routes",
  ...requires({ io_uring: true, commands: ["openssl", "nbdinfo"] }),
  async fn() {
    using temp = tempDir();
    const certificates = await makeCertificates(temp.file("pki"));
    const workers: Worker[] = [];
    const { Worker: Real } = globalThis;
    globalThis.Worker = class extends Real {
      constructor(url: string | URL, options?: WorkerOptions) {
        super(url, options);
        if (options?.name === "tls-relay") workers.push(this);
      }
    };
    await using _again = {
      [Symbol.asyncDispose]: () => Promise.resolve(void (globalThis.Worker = Real)),
    };
    await using served = await serveByTls(temp, { certificates, size_bytes: MIB });
    const { plane, uri } = served;
    const tls = { ca_file: certificates.ca_file };
    const { device } = await plane.command("openDevice", { uri, tls });
    const bytes = new Uint8Array(4096).fill(3);
    await plane.command("writeDevice", { device, at: 0, bytes });
    // Not a message of ours: nobody catches what comes of it.
    workers[0]?.postMessage(null);
    await waitUntil(() => workers.length === 2, { what: "a new thread" });
    const again = await plane.command("readDevice", { device, at: 0, length: 4096 });
    deepEqual(new Uint8Array(again), bytes);
    await waitUntil(
      () => run("nbdinfo", [served.toolUri(certificates.dir)]).then(() => true, () => false),
      { what: "the listener" },
    );
    await plane.command("closeDevice", { device });
  },
});
