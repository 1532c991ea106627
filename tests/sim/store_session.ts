/** A connection to the simulated store: NBD's negotiation and requests, by the codecs of `codec/`. */
import {
  decodeExportQuery,
  decodeOptionHeader,
  decodeRequest,
  encodeChunk,
  encodeChunkError,
  encodeDataOffset,
  encodeGreeting,
  encodeInfo,
  encodeOptionReply,
  encodeSimpleReply,
  NBD_CHUNK,
  NBD_CHUNK_BYTES,
  NBD_CHUNK_ERROR_BYTES,
  NBD_CHUNK_FLAG,
  NBD_CLIENT_FLAGS_BYTES,
  NBD_CMD,
  NBD_CMD_FLAG,
  NBD_DATA_OFFSET_BYTES,
  NBD_FLAG,
  NBD_HANDSHAKE,
  NBD_INFO,
  NBD_OPTION,
  NBD_OPTION_HEADER_BYTES,
  NBD_REP,
  NBD_REQUEST_BYTES,
  NBD_SIMPLE_REPLY_BYTES,
  type NbdRequest,
} from "../../src/codec/mod.ts";
import type { Link, ServerEnd } from "./network.ts";
import type { Store, StoreVolume } from "./store.ts";

const EINTR = 4, EAGAIN = 11, EIO = 5, EINVAL = 22;
const FLAGS = NBD_FLAG.hasFlags | NBD_FLAG.sendFlush | NBD_FLAG.sendFua | NBD_FLAG.sendTrim |
  NBD_FLAG.sendWriteZeroes;
const NOTHING = new Uint8Array();

export class StoreSession implements ServerEnd {
  epoch = 0;
  #volume: StoreVolume | undefined;
  #state: "flags" | "options" | "requests" | "over" = "flags";
  #isStructured = false;
  #bytes: Uint8Array = NOTHING;
  #working = 0;

  constructor(readonly store: Store, readonly link: Link) {
    link.toClient(encodeGreeting(NBD_HANDSHAKE.fixedNewstyle | NBD_HANDSHAKE.noZeroes));
  }

  receive(bytes: Uint8Array): void {
    if (this.#state === "over") return;
    this.#bytes = this.#bytes.length === 0 ? bytes : joined(this.#bytes, bytes);
    while (this.#takeOne());
  }

  closed(): void {
    this.cut();
  }

  /** Ends the session; what it is doing goes on, and holds its successor up. */
  cut(): void {
    if (this.#state === "over") return;
    this.#state = "over";
    this.link.finishByServer();
    const volume = this.#volume;
    if (!volume) return;
    volume.sessions.delete(this);
    volume.draining += this.#working;
  }

  /** The store's process is gone. */
  forget(): void {
    this.#state = "over";
    this.#volume = undefined;
  }

  #take(length: number): Uint8Array | undefined {
    if (this.#bytes.length < length) return undefined;
    const taken = this.#bytes.subarray(0, length);
    this.#bytes = this.#bytes.subarray(length);
    return taken;
  }

  /** @returns whether something was taken, and more may follow. */
  #takeOne(): boolean {
    switch (this.#state) {
      case "flags":
        if (!this.#take(NBD_CLIENT_FLAGS_BYTES)) return false;
        this.#state = "options";
        return true;
      case "options":
        return this.#takeOption();
      case "requests":
        return this.#takeRequest();
      default:
        return false;
    }
  }

  #takeOption(): boolean {
    const header = decodeOptionHeader(this.#bytes);
    if (!header || this.#bytes.length < NBD_OPTION_HEADER_BYTES + header.length) return false;
    this.#take(NBD_OPTION_HEADER_BYTES);
    const data = this.#take(header.length) ?? NOTHING, { option } = header;
    if (option === NBD_OPTION.go || option === NBD_OPTION.info) this.#enter(option, data);
    else if (option === NBD_OPTION.structuredReply && this.store.world.chance(0.5)) {
      this.#isStructured = true;
      this.#reply(option, NBD_REP.ack);
    } else this.#reply(option, NBD_REP.errUnsupported);
    return true;
  }

  #reply(option: number, type: number, data: Uint8Array = NOTHING) {
    this.link.toClient(encodeOptionReply(option, type, data));
  }

  #enter(option: number, data: Uint8Array) {
    const asked = /^(.+)@(\d+)$/.exec(decodeExportQuery(data)?.name ?? "");
    const volume = this.store.volume(asked?.[1] ?? ""), epoch = Number(asked?.[2]);
    if (!volume) return this.#reply(option, NBD_REP.errUnknown);
    if (this.isStale(volume, epoch)) return this.#reply(option, NBD_REP.errPolicy);
    const info = encodeInfo({ type: NBD_INFO.export, sizeBytes: volume.sizeBytes, flags: FLAGS });
    this.#reply(option, NBD_REP.info, info);
    this.#reply(option, NBD_REP.ack);
    if (option === NBD_OPTION.info) return;
    volume.epoch = Math.max(volume.epoch, epoch);
    for (const other of [...volume.sessions]) other.cut();
    volume.sessions.add(this);
    this.#volume = volume;
    this.epoch = epoch;
    this.#state = "requests";
  }

  /** A newer writer has taken the volume over. */
  isStale(volume: StoreVolume, epoch: number): boolean {
    return epoch < volume.epoch;
  }

  #takeRequest(): boolean {
    if (this.#bytes.length < NBD_REQUEST_BYTES) return false;
    const view = new DataView(this.#bytes.buffer, this.#bytes.byteOffset);
    const request = { flags: 0, type: 0, cookieHigh: 0, cookieLow: 0, at: 0, length: 0 };
    if (!decodeRequest(view, 0, request)) throw new Error("the client sent a malformed request");
    const payload = request.type === NBD_CMD.write ? request.length : 0;
    if (this.#bytes.length < NBD_REQUEST_BYTES + payload) return false;
    this.#take(NBD_REQUEST_BYTES);
    const data = (this.#take(payload) ?? NOTHING).slice();
    if (request.type === NBD_CMD.disconnect) this.cut();
    else this.#begin(request, data);
    return true;
  }

  #begin(request: NbdRequest, data: Uint8Array) {
    this.#working++;
    this.#start(request, data);
  }

  /** No old request may land after a new one. */
  mustWait(volume: StoreVolume): boolean {
    return volume.draining > 0 && volume.sessions.has(this);
  }

  /** Waits for the sessions before it to drain, then does it in the time that it takes. */
  #start(request: NbdRequest, data: Uint8Array) {
    const { store } = this, volume = this.#volume;
    if (!volume) return;
    if (this.mustWait(volume)) {
      return store.work(() => this.#start(request, data));
    }
    const { disk } = store, { at, length, type } = request;
    const sync = type === NBD_CMD.flush || (request.flags & NBD_CMD_FLAG.fua) !== 0
      ? disk.beginSync(volume.file)
      : undefined;
    const tear = type === NBD_CMD.write
      ? () => disk.tear(volume.file, at, data)
      : type === NBD_CMD.writeZeroes
      ? () => disk.tear(volume.file, at, new Uint8Array(length))
      : undefined;
    store.work(() => this.#do(volume, request, data, sync), tear);
  }

  #do(
    volume: StoreVolume,
    request: NbdRequest,
    data: Uint8Array,
    sync: (() => number) | undefined,
  ) {
    const { disk } = this.store, { file } = volume, { at, length, flags } = request;
    const isDurable = (flags & NBD_CMD_FLAG.fua) !== 0;
    let result = 0, answer = NOTHING;
    if (request.type !== NBD_CMD.flush && at + length > volume.sizeBytes) result = -EINVAL;
    else if (request.type === NBD_CMD.read) {
      answer = new Uint8Array(length);
      result = insist(length, (done) => disk.read(file, at + done, answer.subarray(done)));
    } else if (request.type === NBD_CMD.write) {
      const put = (done: number) => disk.write(file, at + done, data.subarray(done), isDurable);
      result = insist(length, put);
    } else if (request.type === NBD_CMD.flush) result = sync?.() ?? 0;
    else {
      disk.put(file, at, new Uint8Array(length));
      if (isDurable) result = disk.beginSync(file)();
    }
    this.#working--;
    if (this.#volume !== undefined && !volume.sessions.has(this)) volume.draining--;
    else this.#answer(request, result === -EINTR || result === -EAGAIN ? EIO : -result, answer);
  }

  #answer(request: NbdRequest, error: number, data: Uint8Array) {
    if (this.#state === "over") return;
    const isRead = request.type === NBD_CMD.read;
    if (this.#isStructured && isRead) this.link.toClient(chunk(request, error, data));
    else {
      const bytes = new Uint8Array(NBD_SIMPLE_REPLY_BYTES + (error === 0 ? data.length : 0));
      const view = new DataView(bytes.buffer);
      encodeSimpleReply(view, 0, error, request.cookieHigh, request.cookieLow);
      if (error === 0) bytes.set(data, NBD_SIMPLE_REPLY_BYTES);
      this.link.toClient(bytes);
    }
  }
}

/** A read's whole answer in one chunk. */
function chunk(request: NbdRequest, error: number, data: Uint8Array): Uint8Array {
  const { cookieHigh, cookieLow } = request, done = NBD_CHUNK_FLAG.done;
  const payload = error === 0 ? NBD_DATA_OFFSET_BYTES + data.length : NBD_CHUNK_ERROR_BYTES;
  const bytes = new Uint8Array(NBD_CHUNK_BYTES + payload), view = new DataView(bytes.buffer);
  const type = error === 0 ? NBD_CHUNK.offsetData : NBD_CHUNK.error;
  encodeChunk(view, 0, type, done, cookieHigh, cookieLow, payload);
  if (error === 0) {
    encodeDataOffset(view, NBD_CHUNK_BYTES, request.at);
    bytes.set(data, NBD_CHUNK_BYTES + NBD_DATA_OFFSET_BYTES);
  } else encodeChunkError(view, NBD_CHUNK_BYTES, error, NOTHING);
  return bytes;
}

/** Goes on where a transfer stopped short. @returns 0, or the negative errno that it failed with. */
export function insist(length: number, transfer: (done: number) => number): number {
  for (let done = 0; done < length;) {
    const count = transfer(done);
    if (count === -EINTR || count === -EAGAIN) continue;
    if (count <= 0) return count === 0 ? -EIO : count;
    done += count;
  }
  return 0;
}

function joined(first: Uint8Array, second: Uint8Array): Uint8Array {
  const both = new Uint8Array(first.length + second.length);
  both.set(first);
  both.set(second, first.length);
  return both;
}
