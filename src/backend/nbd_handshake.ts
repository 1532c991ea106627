/**
 * The client's side of NBD's negotiation: connect, fixed newstyle, NBD_OPT_GO or NBD_OPT_INFO. Off the hot
 * path: async on the reactor. One handshake at a time per dialler, because its memory is shared by them.
 *
 * Faults: a server that does not answer in HANDSHAKE_MS is given up; every failure closes the socket, after
 * the kernel has finished with it, and says what to look at.
 */
import { assert, errnoText, PsmaError } from "../core/mod.ts";
import {
  decodeGreeting,
  decodeInfo,
  decodeOptionReplyHeader,
  encodeClientFlags,
  encodeExportQuery,
  encodeOption,
  NBD_FLAG,
  NBD_GREETING_BYTES,
  NBD_HANDSHAKE,
  NBD_INFO,
  NBD_OPTION,
  NBD_OPTION_REPLY_HEADER_BYTES,
  NBD_REP,
  type NbdOptionReplyHeader,
} from "../codec/mod.ts";
import {
  allocateMemory,
  closeFile,
  type Memory,
  noticeDeadPeer,
  openSocket,
  type Reactor,
  setNoDelay,
  shutdownSocket,
  type Sockaddr,
  sockaddrOf,
} from "../sys/mod.ts";
import { type NbdTarget, targetText } from "./nbd_uri.ts";

const HANDSHAKE_MS = 10_000;
/** A server that vanished without a word is noticed within this; also one that takes nothing for as long. */
const DEAD_PEER_MS = 30_000;
const MEMORY_BYTES = 16 * 1024;
/** Information and list replies before the acknowledgement; more is not a server that we know. */
const REPLIES_MAX = 64;
/** What a server that names no limit must take ("Block size constraints"). */
const DEFAULT_BLOCK_BYTES_MAX = 32 * 1024 * 1024;

/** What a server offers of an export. */
export interface NbdOffer {
  readonly sizeBytes: number;
  /** NBD_FLAG bits. */
  readonly flags: number;
  /** Bytes of the largest read or write that it takes. */
  readonly blockBytesMax: number;
}

/** Until the server has said what it can do. */
export const NO_OFFER: NbdOffer = { sizeBytes: 0, flags: 0, blockBytesMax: 1 };

/** @param fd a connected socket in transmission phase, owned by the caller. */
export interface NbdConnected {
  readonly fd: number;
  readonly offer: NbdOffer;
}

export class NbdDialler {
  readonly #memory: Memory = allocateMemory(MEMORY_BYTES);
  readonly #cancelKind: number;
  readonly #where: Sockaddr;
  #busy = false;

  /** @throws {PsmaError} usage/host, usage/socket-path */
  constructor(readonly reactor: Reactor, readonly target: NbdTarget) {
    this.#where = sockaddrOf(target.address);
    this.#cancelKind = reactor.ring.register(() => {});
  }

  /** Connects and enters the export. @throws {PsmaError} store/unreachable, store/nbd-protocol, not-found/export, fenced/epoch */
  async enter(): Promise<NbdConnected> {
    return await this.#dial(NBD_OPTION.go);
  }

  /** Asks what the export is now, on a connection of its own. @throws as `enter`. */
  async ask(): Promise<NbdOffer> {
    const { fd, offer } = await this.#dial(NBD_OPTION.info);
    closeFile(fd);
    return offer;
  }

  async #dial(option: number): Promise<NbdConnected> {
    assert(!this.#busy, "two handshakes share a dialler");
    const fd = openSocket(this.#where.family);
    this.#busy = true;
    const limit = { done: false, expired: false };
    this.#expire(fd, limit);
    try {
      const result = await this.reactor.connect(fd, this.#where.bytes);
      if (result < 0) throw this.#unreachable(errnoText(result));
      if (!("path" in this.target.address)) {
        setNoDelay(fd);
        noticeDeadPeer(fd, DEAD_PEER_MS);
      }
      return { fd, offer: await this.#negotiate(fd, option) };
    } catch (error) {
      closeFile(fd);
      throw limit.expired ? this.#unreachable("it did not answer in time") : error;
    } finally {
      limit.done = true;
      this.#busy = false;
    }
  }

  /** Ends what waits on the socket when time is up. */
  async #expire(fd: number, limit: { done: boolean; expired: boolean }): Promise<void> {
    await this.reactor.sleep(HANDSHAKE_MS);
    if (limit.done) return;
    limit.expired = true;
    shutdownSocket(fd);
    this.reactor.ring.cancelFd(fd, this.#cancelKind, 0);
  }

  async #negotiate(fd: number, option: number): Promise<NbdOffer> {
    const flags = decodeGreeting(await this.#receive(fd, NBD_GREETING_BYTES));
    if (flags === undefined || (flags & NBD_HANDSHAKE.fixedNewstyle) === 0) {
      throw this.#broken("it does not speak fixed newstyle NBD");
    }
    const query = encodeExportQuery({
      name: this.target.exportName,
      wanted: [NBD_INFO.blockSize],
    });
    const both = flags & (NBD_HANDSHAKE.fixedNewstyle | NBD_HANDSHAKE.noZeroes);
    await this.#send(fd, encodeClientFlags(both));
    await this.#send(fd, encodeOption(option, query));
    return await this.#readOffer(fd, option);
  }

  async #readOffer(fd: number, option: number): Promise<NbdOffer> {
    let sizeBytes: number | undefined, flags = 0, blockBytesMax = DEFAULT_BLOCK_BYTES_MAX;
    for (let replies = 0; replies < REPLIES_MAX; replies++) {
      const header = decodeOptionReplyHeader(
        await this.#receive(fd, NBD_OPTION_REPLY_HEADER_BYTES),
      );
      if (!header || header.option !== option || header.length > MEMORY_BYTES) {
        throw this.#broken("its answer is malformed");
      }
      const data = await this.#receive(fd, header.length);
      if (header.type === NBD_REP.ack) {
        if (sizeBytes === undefined) throw this.#broken("it does not tell the export's size");
        return { sizeBytes, flags: checkedFlags(flags), blockBytesMax };
      }
      if (header.type !== NBD_REP.info) throw this.#refused(header, data);
      const info = decodeInfo(data);
      if (info?.type === NBD_INFO.export) ({ sizeBytes, flags } = info);
      if (info?.type === NBD_INFO.blockSize) blockBytesMax = Math.max(1, info.maximum);
    }
    throw this.#broken("its answer does not end");
  }

  async #send(fd: number, bytes: Uint8Array): Promise<void> {
    for (let sent = 0; sent < bytes.length;) {
      const rest = bytes.subarray(sent);
      this.#memory.bytes.set(rest);
      const result = await this.reactor.send(fd, this.#memory, rest.length);
      if (result <= 0) throw this.#unreachable(errnoText(result));
      sent += result;
    }
  }

  /** @returns a copy: the memory serves the next message. */
  async #receive(fd: number, length: number): Promise<Uint8Array> {
    for (let got = 0; got < length;) {
      const result = await this.reactor.recv(fd, this.#memory, length - got, got);
      if (result === 0) throw this.#unreachable("it closed the connection");
      if (result < 0) throw this.#unreachable(errnoText(result));
      got += result;
    }
    return this.#memory.bytes.slice(0, length);
  }

  #refused(header: NbdOptionReplyHeader, data: Uint8Array): PsmaError {
    const said = new TextDecoder().decode(data).slice(0, 200);
    const reason = said === "" ? `it refused (0x${header.type.toString(16)})` : said;
    const message = `Cannot open ${targetText(this.target)}: ${reason}`;
    if (header.type === NBD_REP.errPolicy) {
      return new PsmaError("fenced/epoch", message, {
        hint: "Another agent has taken the volume over, or the server's policy forbids it.",
      });
    }
    if (header.type === NBD_REP.errUnknown) return new PsmaError("not-found/export", message);
    return new PsmaError("store/nbd-refused", message);
  }

  #unreachable(reason: string): PsmaError {
    return new PsmaError(
      "store/unreachable",
      `Cannot reach ${targetText(this.target)}: ${reason}`,
      { hint: "Check that the NBD server runs there and that nothing blocks the way." },
    );
  }

  #broken(reason: string): PsmaError {
    return new PsmaError("store/nbd-protocol", `Cannot open ${targetText(this.target)}: ${reason}`);
  }
}

/** Without NBD_FLAG_HAS_FLAGS the other bits mean nothing. */
function checkedFlags(flags: number): number {
  return (flags & NBD_FLAG.hasFlags) === 0 ? 0 : flags;
}
