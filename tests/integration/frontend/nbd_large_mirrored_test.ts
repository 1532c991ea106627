/** A write that is larger than a slot, to a volume with a mirror that falls back in the middle of it. */
import assert from "node:assert/strict";
import {
  encodeClientFlags,
  encodeOption,
  encodeRequest,
  NBD_CMD,
  NBD_GREETING_BYTES,
  NBD_HANDSHAKE,
  NBD_OPTION,
  NBD_REQUEST_BYTES,
  NBD_SIMPLE_REPLY_BYTES,
} from "../../../src/codec/mod.ts";
import { NbdServer } from "../../../src/frontend/mod.ts";
import { closeFile, openSocket, sockaddrOf } from "../../../src/sys/mod.ts";
import { type InThread, inThread, TEST_MAX_IO, until } from "../../support/in_thread.ts";
import { MirrorRig } from "../../support/mirror_rig.ts";
import { requires } from "../../support/requires.ts";
import { tempDir } from "../../support/temp.ts";

const PARTS = 4;
/** Of the answer to EXPORT_NAME: size and flags. */
const EXPORT_BYTES = 10;

/** An NBD client on the test's own ring, that asks for no block sizes. */
class RingClient {
  private constructor(readonly thread: InThread, readonly fd: number) {}

  static async enter(thread: InThread, path: string, name: string): Promise<RingClient> {
    const { family, bytes } = sockaddrOf({ path });
    const client = new RingClient(thread, openSocket(family));
    assert.equal(await thread.reactor.connect(client.fd, bytes), 0);
    await client.receive(NBD_GREETING_BYTES);
    await client.send(encodeClientFlags(NBD_HANDSHAKE.fixedNewstyle | NBD_HANDSHAKE.noZeroes));
    await client.send(encodeOption(NBD_OPTION.exportName, new TextEncoder().encode(name)));
    await client.receive(EXPORT_BYTES);
    return client;
  }

  async send(bytes: Uint8Array): Promise<void> {
    const { memory, reactor } = this.thread;
    const copy = memory.allocate(bytes.length);
    copy.bytes.set(bytes);
    assert.equal(await reactor.send(this.fd, copy, bytes.length), bytes.length);
    memory.release(copy);
  }

  async receive(length: number): Promise<Uint8Array> {
    const { memory, reactor } = this.thread;
    const into = memory.allocate(length);
    assert.equal(await reactor.recv(this.fd, into, length), length);
    const bytes = into.bytes.slice(0, length);
    memory.release(into);
    return bytes;
  }

  /** @returns once it is answered: the error. */
  async write(at: number, payload: Uint8Array): Promise<number> {
    const bytes = new Uint8Array(NBD_REQUEST_BYTES + payload.length);
    encodeRequest(new DataView(bytes.buffer), 0, NBD_CMD.write, 0, 0, 1, at, payload.length);
    bytes.set(payload, NBD_REQUEST_BYTES);
    const answer = this.receive(NBD_SIMPLE_REPLY_BYTES);
    await this.send(bytes);
    return new DataView((await answer).buffer).getUint32(4);
  }
}

Deno.test({
  name: "a part that was left behind on its way to the mirror keeps its bytes while others follow",
  ...requires({ io_uring: true }),
  fn: async () => {
    using temp = tempDir();
    await inThread(async (thread) => {
      const { reactor, requests } = thread;
      const rig = await MirrorRig.start(thread, temp);
      const server = new NbdServer({ reactor, requests, fenced: false });
      const path = temp.file("nbd.sock");
      server.listen({ path });
      server.addExport({ name: "data", description: "", volume: rig.volume });
      const client = await RingClient.enter(thread, path, "data");
      await rig.write(99);
      await rig.mirror.converge(5000);
      const payload = new Uint8Array(PARTS * TEST_MAX_IO);
      for (let part = 0; part < PARTS; part++) {
        payload.fill(part + 1, part * TEST_MAX_IO, (part + 1) * TEST_MAX_IO);
      }
      rig.target.hold();
      const written = client.write(0, payload);
      await until(thread, () => rig.target.held === 1, "the first part at the target");
      rig.target.overtake();
      rig.mirror.pause();
      assert.equal(await written, 0);
      assert.ok(rig.volume.hasWriteIn({ at: 0, length: TEST_MAX_IO }), "it may still land");
      rig.target.release();
      const within = { at: 0, length: payload.length };
      await until(thread, () => !rig.volume.hasWriteIn(within), "the part to land");
      const landed = Deno.readFileSync(temp.file("target")).subarray(0, payload.length);
      assert.deepEqual(new Set(landed.subarray(0, TEST_MAX_IO)), new Set([1]));
      rig.mirror.resume();
      await rig.mirror.converge(5000);
      const mirrored = Deno.readFileSync(temp.file("target")).subarray(0, payload.length);
      assert.ok(payload.every((byte, at) => mirrored[at] === byte), "both sides are equal");
      closeFile(client.fd);
      await server.close();
      await rig.end();
      assert.equal(requests.freeCount, requests.count);
    });
  },
});
