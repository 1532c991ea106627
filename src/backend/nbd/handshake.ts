/**
 * The client's side of NBD's negotiation on a connected socket: fixed newstyle, extended headers or else
 * structured replies, `base:allocation`, and NBD_OPT_GO or NBD_OPT_INFO. Off the hot path: async on the
 * reactor.
 *
 * What a server does not know it refuses, and goes without: only GO and INFO must succeed.
 */
import { errnoText, PsmaError } from "../../core/mod.ts";
import {
  decodeContext,
  decodeGreeting,
  decodeInfo,
  decodeOptionReplyHeader,
  encodeClientFlags,
  encodeContextQuery,
  encodeExportQuery,
  encodeOption,
  NBD_ALLOCATION,
  NBD_FLAG,
  NBD_GREETING_BYTES,
  NBD_HANDSHAKE,
  NBD_INFO,
  NBD_OPTION,
  NBD_OPTION_REPLY_HEADER_BYTES,
  NBD_REP,
} from "../../codec/mod.ts";
import { allocateMemory, type Memory, type Reactor, unmapMemory } from "../../sys/mod.ts";
import { FRAMING, type NbdOffer } from "./offer.ts";
import { type NbdTarget, targetText } from "./uri.ts";

const MEMORY_BYTES = 16 * 1024;
/** Information before the acknowledgement; more is not a server that we know. */
const REPLIES_MAX = 64;
/** What a server that names no limit must take ("Block size constraints"). */
const DEFAULT_BLOCK_BYTES_MAX = 32 * 1024 * 1024;
const NOTHING = new Uint8Array();

/** One reply to an option. */
interface Reply {
  readonly type: number;
  readonly data: Uint8Array;
}

/**
 * Negotiates an export on a socket that the caller has connected and keeps.
 * @param option NBD_OPTION.go, after which the socket is in transmission phase, or NBD_OPTION.info.
 * @throws {PsmaError} store/unreachable, store/nbd-protocol, store/nbd-refused, not-found/export, fenced/epoch
 */
export async function negotiate(
  reactor: Reactor,
  fd: number,
  target: NbdTarget,
  option: number,
): Promise<NbdOffer> {
  const handshake = new Handshake(reactor, fd, target);
  try {
    return await handshake.run(option);
  } finally {
    handshake.release();
  }
}

class Handshake {
  readonly #memory: Memory = allocateMemory(MEMORY_BYTES);

  constructor(readonly reactor: Reactor, readonly fd: number, readonly target: NbdTarget) {}

  release(): void {
    unmapMemory(this.#memory);
  }

  async run(option: number): Promise<NbdOffer> {
    const flags = decodeGreeting(await this.#receive(NBD_GREETING_BYTES));
    if (flags === undefined || (flags & NBD_HANDSHAKE.fixedNewstyle) === 0) {
      throw this.#broken("it does not speak fixed newstyle NBD");
    }
    await this.#send(
      encodeClientFlags(flags & (NBD_HANDSHAKE.fixedNewstyle | NBD_HANDSHAKE.noZeroes)),
    );
    // Who only asks for the size needs none of it.
    if (option === NBD_OPTION.info) return await this.#enter(option, FRAMING.simple, undefined);
    const framing = await this.#agreeOnFraming();
    const allocationId = framing === FRAMING.simple ? undefined : await this.#chooseContext();
    return await this.#enter(option, framing, allocationId);
  }

  async #agreeOnFraming(): Promise<number> {
    if (await this.#isGranted(NBD_OPTION.extendedHeaders)) return FRAMING.extended;
    if (await this.#isGranted(NBD_OPTION.structuredReply)) return FRAMING.structured;
    return FRAMING.simple;
  }

  async #isGranted(option: number): Promise<boolean> {
    const replies = await this.#ask(option, NOTHING);
    return replies.at(-1)?.type === NBD_REP.ack;
  }

  /** @returns the identifier of `base:allocation`; undefined where the export has none. */
  async #chooseContext(): Promise<number | undefined> {
    const query = { name: this.target.exportName, queries: [NBD_ALLOCATION] };
    const replies = await this.#ask(NBD_OPTION.setMetaContext, encodeContextQuery(query));
    if (replies.at(-1)?.type !== NBD_REP.ack) return undefined;
    return replies.filter(({ type }) => type === NBD_REP.metaContext)
      .map(({ data }) => decodeContext(data)).find((one) => one?.name === NBD_ALLOCATION)?.id;
  }

  async #enter(
    option: number,
    framing: number,
    allocationId: number | undefined,
  ): Promise<NbdOffer> {
    const query = { name: this.target.exportName, wanted: [NBD_INFO.blockSize] };
    const replies = await this.#ask(option, encodeExportQuery(query));
    const last = replies.at(-1);
    if (last?.type !== NBD_REP.ack) throw this.#refused(last);
    let sizeBytes: number | undefined, flags = 0, blockBytesMax = DEFAULT_BLOCK_BYTES_MAX;
    for (const { data } of replies) {
      const info = decodeInfo(data);
      if (info?.type === NBD_INFO.export) ({ sizeBytes, flags } = info);
      if (info?.type === NBD_INFO.blockSize) blockBytesMax = Math.max(1, info.maximum);
    }
    if (sizeBytes === undefined) throw this.#broken("it does not tell the export's size");
    return { sizeBytes, flags: checkedFlags(flags), blockBytesMax, framing, allocationId };
  }

  /** Sends an option and reads its answer to the end: an acknowledgement or an error comes last. */
  async #ask(option: number, data: Uint8Array): Promise<Reply[]> {
    await this.#send(encodeOption(option, data));
    const replies: Reply[] = [];
    while (replies.length < REPLIES_MAX) {
      const header = decodeOptionReplyHeader(await this.#receive(NBD_OPTION_REPLY_HEADER_BYTES));
      if (!header || header.option !== option || header.length > MEMORY_BYTES) {
        throw this.#broken("its answer is malformed");
      }
      const { type, length } = header;
      replies.push({ type, data: await this.#receive(length) });
      if (type !== NBD_REP.info && type !== NBD_REP.metaContext) return replies;
    }
    throw this.#broken("its answer does not end");
  }

  async #send(bytes: Uint8Array): Promise<void> {
    for (let sent = 0; sent < bytes.length;) {
      const rest = bytes.subarray(sent);
      this.#memory.bytes.set(rest);
      const result = await this.reactor.send(this.fd, this.#memory, rest.length);
      if (result <= 0) throw unreachable(this.target, errnoText(result));
      sent += result;
    }
  }

  /** @returns a copy: the memory serves the next message. */
  async #receive(length: number): Promise<Uint8Array> {
    for (let got = 0; got < length;) {
      const result = await this.reactor.recv(this.fd, this.#memory, length - got, got);
      if (result === 0) throw unreachable(this.target, "it closed the connection");
      if (result < 0) throw unreachable(this.target, errnoText(result));
      got += result;
    }
    return this.#memory.bytes.slice(0, length);
  }

  #refused(reply: Reply | undefined): PsmaError {
    const said = new TextDecoder().decode(reply?.data).slice(0, 200);
    const reason = said === "" ? `it refused (0x${reply?.type.toString(16)})` : said;
    const message = `Cannot open ${targetText(this.target)}: ${reason}`;
    if (reply?.type === NBD_REP.errPolicy) {
      return new PsmaError("fenced/epoch", message, {
        hint: "Another agent has taken the volume over, or the server's policy forbids it.",
      });
    }
    if (reply?.type === NBD_REP.errUnknown) return new PsmaError("not-found/export", message);
    return new PsmaError("store/nbd-refused", message);
  }

  #broken(reason: string): PsmaError {
    return new PsmaError("store/nbd-protocol", `Cannot open ${targetText(this.target)}: ${reason}`);
  }
}

/** The error for a server that is not there, or stopped being there. */
export function unreachable(target: NbdTarget, reason: string): PsmaError {
  return new PsmaError("store/unreachable", `Cannot reach ${targetText(target)}: ${reason}`, {
    hint: "Check that the NBD server runs there and that nothing blocks the way.",
  });
}

/** Without NBD_FLAG_HAS_FLAGS the other bits mean nothing. */
function checkedFlags(flags: number): number {
  return (flags & NBD_FLAG.hasFlags) === 0 ? 0 : flags;
}
