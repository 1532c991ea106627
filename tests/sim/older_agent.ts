/**
 * Another agent with a copy of the state directory, as far as the store sees one: it knows the place and the
 * epoch of when it was copied, and writes rubbish there once a later opening has claimed the volume, as one
 * does that was stopped, or cut off, while the volume was taken over from it. A store that fences lets it in
 * never again.
 */
import {
  decodeOptionReplyHeader,
  encodeClientFlags,
  encodeExportQuery,
  encodeOption,
  encodeRequest,
  type Manifest,
  NBD_CMD,
  NBD_GREETING_BYTES,
  NBD_HANDSHAKE,
  NBD_OPTION,
  NBD_OPTION_REPLY_HEADER_BYTES,
  NBD_REP,
  NBD_REQUEST_BYTES,
} from "../../src/codec/mod.ts";
import { SECTOR_BYTES } from "./disk.ts";
import { type Network, VirtualSocket } from "./network.ts";
import type { World } from "./world.ts";

const RUBBISH = 0xee, BLOCKS = 16;

export class OlderAgent {
  #copy: { readonly manifest: Manifest; readonly life: number } | undefined;

  constructor(readonly world: World, readonly network: Network) {}

  /**
   * Copies the state, or tries to write by the copy that it has.
   * @param manifest as it is now, of a volume that is open. @param life of the agent: another one, another opening.
   */
  act(manifest: Manifest, life: number): void {
    const { active } = manifest, copied = this.#copy?.manifest.active;
    if (active.backend.type !== "nbd") return;
    if (copied?.store_volume !== active.store_volume) {
      this.#copy = { manifest, life };
    } else if (this.#copy && this.#copy.life < life) this.#write(this.#copy.manifest);
  }

  #write({ active: { backend, size_bytes } }: Manifest) {
    if (backend.type !== "nbd") return;
    const name = new URL(backend.uri).pathname.slice(1);
    const at = this.world.rng.below(size_bytes / SECTOR_BYTES - BLOCKS) * SECTOR_BYTES;
    const bytes = new Uint8Array(NBD_REQUEST_BYTES + BLOCKS * SECTOR_BYTES).fill(RUBBISH);
    const length = bytes.length - NBD_REQUEST_BYTES;
    encodeRequest(new DataView(bytes.buffer), 0, NBD_CMD.write, 0, 0, 1, at, length);
    const connection = new Connection(this.network);
    connection.open(() =>
      connection.enter(name, () => {
        this.world.note(`the older agent writes at ${at}`);
        connection.send(bytes);
      })
    );
  }
}

/** One attempt: whatever ends it, the next is another one. */
class Connection {
  readonly #socket: VirtualSocket;

  constructor(network: Network) {
    this.#socket = new VirtualSocket(network);
  }

  open(done: () => void): void {
    this.#socket.connect((result) => {
      if (result === 0) this.#read(NBD_GREETING_BYTES, done);
    });
  }

  enter(name: string, done: () => void): void {
    this.send(encodeClientFlags(NBD_HANDSHAKE.fixedNewstyle | NBD_HANDSHAKE.noZeroes));
    this.send(encodeOption(NBD_OPTION.go, encodeExportQuery({ name, wanted: [] })));
    this.#reply(done);
  }

  #reply(done: () => void) {
    this.#read(NBD_OPTION_REPLY_HEADER_BYTES, (header) => {
      const { type = 0, length = 0 } = decodeOptionReplyHeader(header) ?? {};
      if (type === NBD_REP.ack) done();
      else if (type !== NBD_REP.info) this.#socket.close();
      else this.#read(length, () => this.#reply(done));
    });
  }

  #read(length: number, done: (bytes: Uint8Array) => void) {
    const into = new Uint8Array(length);
    this.#socket.receive(into, true, (result) => {
      if (result === length) done(into);
      else this.#socket.close();
    });
  }

  send(bytes: Uint8Array): void {
    for (let sent = 0; sent < bytes.length;) {
      const taken = this.#socket.send(bytes.subarray(sent));
      if (taken <= 0) return;
      sent += taken;
    }
  }
}
