/**
 * The negotiation phase of an NBD session: fixed newstyle, one option at a time. Off the hot path.
 * An option is read when the answer to the one before has left, so that a client can not make us keep
 * more than one answer. The server's tick ends negotiations that take too long.
 *
 * Refused, so that clients go on without: STARTTLS, which a relay in front of the server speaks.
 */
import {
  decodeClientFlags,
  decodeContextQuery,
  decodeExportQuery,
  decodeOptionHeader,
  encodeContext,
  encodeExportNameAnswer,
  encodeGreeting,
  encodeInfo,
  encodeListEntry,
  encodeOptionReply,
  NBD_CLIENT_FLAGS_BYTES,
  NBD_HANDSHAKE,
  NBD_INFO,
  NBD_OPTION,
  NBD_OPTION_HEADER_BYTES,
  NBD_REP,
  NBD_STRING_BYTES_MAX,
} from "../../codec/mod.ts";
import { allocateMemory, type Memory } from "../../sys/mod.ts";
import { chosenContexts, listedContexts, queriesFit } from "./contexts.ts";
import {
  type Grant,
  isRefusal,
  type NbdExport,
  type NbdExports,
  type Refusal,
  transmissionFlags,
} from "./exports.ts";
import { REPLY_STYLE } from "./reply.ts";
import type { NbdSession } from "./session.ts";
import { PHASE } from "./session_host.ts";

const OUT_BYTES = 16 * 1024;
/** A name, its length, and more information requests than there are. */
const OPTION_BYTES_MAX = NBD_STRING_BYTES_MAX + 4096;
const PREFERRED_BLOCK_BYTES = 4096;
const NOTHING = new Uint8Array();

/** What follows once the answer has left. */
type Then = "options" | "transmission" | "end";

/** Per session index: kept for the next session, because the memory is the kernel's while a send runs. */
interface Conversation {
  readonly out: Memory;
  answer: readonly Uint8Array[];
  next: number;
  sending: boolean;
  then: Then;
  noZeroes: boolean;
  /** REPLY_STYLE, as far as negotiated. */
  style: number;
  /** The export that a context was chosen for last, and the context's id. */
  chosen: { readonly entry: NbdExport; readonly id: number } | undefined;
}

export interface NegotiationEvents {
  refused(message: string): void;
  /** The session may send requests from now on. */
  entered(session: NbdSession): void;
}

export class NbdNegotiation {
  readonly #conversations: Conversation[] = [];

  constructor(
    readonly exports: NbdExports,
    readonly maxIo: number,
    readonly events: NegotiationEvents,
  ) {}

  /** The server speaks first. */
  begin(session: NbdSession): void {
    const conversation = this.#conversations[session.index] ??= {
      out: allocateMemory(OUT_BYTES),
      answer: [],
      next: 0,
      sending: false,
      then: "options",
      noZeroes: false,
      style: REPLY_STYLE.simple,
      chosen: undefined,
    };
    conversation.sending = false;
    conversation.noZeroes = false;
    conversation.style = REPLY_STYLE.simple;
    conversation.chosen = undefined;
    const flags = NBD_HANDSHAKE.fixedNewstyle | NBD_HANDSHAKE.noZeroes;
    this.#answer(session, [encodeGreeting(flags)], "options");
  }

  /** Reads what is there; called when bytes have come and when an answer has left. */
  read(session: NbdSession): void {
    const conversation = this.#of(session);
    while (!conversation.sending && session.phase < PHASE.held) {
      if (!session.skip()) break;
      const bytes = session.buffer.bytes.subarray(session.start, session.end);
      const before = session.start;
      if (session.phase === PHASE.clientFlags) this.#readClientFlags(session, bytes);
      else this.#readOption(session, bytes);
      if (session.start === before) break;
    }
    if (!conversation.sending) session.receive();
  }

  #readClientFlags(session: NbdSession, bytes: Uint8Array) {
    const flags = decodeClientFlags(bytes);
    if (flags === undefined) return;
    session.start += NBD_CLIENT_FLAGS_BYTES;
    if ((flags & ~(NBD_HANDSHAKE.fixedNewstyle | NBD_HANDSHAKE.noZeroes)) !== 0) {
      return session.cut("its handshake flags are unknown");
    }
    this.#of(session).noZeroes = (flags & NBD_HANDSHAKE.noZeroes) !== 0;
    session.phase = PHASE.options;
  }

  #readOption(session: NbdSession, bytes: Uint8Array) {
    if (bytes.length < NBD_OPTION_HEADER_BYTES) return;
    const header = decodeOptionHeader(bytes);
    if (!header) return session.cut("its option has a wrong magic number");
    const { option, length } = header;
    if (length > OPTION_BYTES_MAX) {
      if (option === NBD_OPTION.exportName) return session.cut("its export name is too long");
      session.start += NBD_OPTION_HEADER_BYTES;
      session.skipBytes = length;
      return this.#answerError(session, option, NBD_REP.errTooBig, "the option is too long");
    }
    if (bytes.length < NBD_OPTION_HEADER_BYTES + length) return;
    session.start += NBD_OPTION_HEADER_BYTES + length;
    // Copied: the buffer's bytes move.
    const data = bytes.slice(NBD_OPTION_HEADER_BYTES, NBD_OPTION_HEADER_BYTES + length);
    this.#answerOption(session, option, data);
  }

  #answerOption(session: NbdSession, option: number, data: Uint8Array) {
    switch (option) {
      case NBD_OPTION.exportName:
        return this.#exportName(session, data);
      case NBD_OPTION.go:
      case NBD_OPTION.info:
        return this.#infoOrGo(session, option, data);
      case NBD_OPTION.list:
        return this.#list(session, data);
      case NBD_OPTION.structuredReply:
      case NBD_OPTION.extendedHeaders:
        return this.#setStyle(session, option, data);
      case NBD_OPTION.listMetaContext:
      case NBD_OPTION.setMetaContext:
        return this.#contexts(session, option, data);
      case NBD_OPTION.abort:
        return this.#answer(session, [encodeOptionReply(option, NBD_REP.ack, NOTHING)], "end");
      default:
        return this.#answerError(session, option, NBD_REP.errUnsupported, "not supported");
    }
  }

  #setStyle(session: NbdSession, option: number, data: Uint8Array) {
    const conversation = this.#of(session);
    const style = option === NBD_OPTION.extendedHeaders
      ? REPLY_STYLE.extended
      : REPLY_STYLE.structured;
    if (data.length > 0) {
      return this.#answerError(session, option, NBD_REP.errInvalid, "the option takes no data");
    }
    if (conversation.style === style) {
      return this.#answerError(session, option, NBD_REP.errInvalid, "it is so already");
    }
    if (conversation.style > style) {
      const message = "extended headers are in use already";
      return this.#answerError(session, option, NBD_REP.errExtendedHeaderRequired, message);
    }
    conversation.style = style;
    this.#answer(session, [encodeOptionReply(option, NBD_REP.ack, NOTHING)], "options");
  }

  #contexts(session: NbdSession, option: number, data: Uint8Array) {
    const conversation = this.#of(session), sets = option === NBD_OPTION.setMetaContext;
    // Also where it fails, a request to choose ends the choice before it.
    if (sets) conversation.chosen = undefined;
    const query = decodeContextQuery(data);
    if (conversation.style === REPLY_STYLE.simple || !query || !queriesFit(query.queries)) {
      const message = query
        ? "contexts need structured replies, and a namespace each"
        : "the option is malformed";
      return this.#answerError(session, option, NBD_REP.errInvalid, message);
    }
    const grant = this.exports.decide(query.name);
    // Told to the event log when the export itself is asked for.
    if (isRefusal(grant)) return this.#answerError(session, option, grant.type, grant.message);
    const contexts = sets ? chosenContexts(query.queries) : listedContexts(query.queries);
    const first = contexts[0];
    if (sets && first) conversation.chosen = { entry: grant.export, id: first.id };
    const answer = contexts.map((context) =>
      encodeOptionReply(option, NBD_REP.metaContext, encodeContext(context))
    );
    this.#answer(session, [...answer, encodeOptionReply(option, NBD_REP.ack, NOTHING)], "options");
  }

  #list(session: NbdSession, data: Uint8Array) {
    const option = NBD_OPTION.list;
    if (data.length > 0) {
      return this.#answerError(session, option, NBD_REP.errInvalid, "LIST takes no data");
    }
    const entries = this.exports.all().map((entry) =>
      encodeOptionReply(option, NBD_REP.server, encodeListEntry(entry))
    );
    this.#answer(session, [...entries, encodeOptionReply(option, NBD_REP.ack, NOTHING)], "options");
  }

  #exportName(session: NbdSession, data: Uint8Array) {
    if (this.#of(session).style === REPLY_STYLE.extended) {
      return session.cut("it asks for extended headers, and then for an export by the old option");
    }
    const grant = this.exports.decide(new TextDecoder().decode(data));
    // The option has no error reply: the specification ends the session.
    if (isRefusal(grant)) return this.#refuse(session, grant, () => session.cut(undefined));
    const answer = encodeExportNameAnswer({
      sizeBytes: grant.export.volume.sizeBytes,
      flags: this.#flags(session, grant),
      padded: !this.#of(session).noZeroes,
    });
    this.#enter(session, grant, [answer]);
  }

  #flags(session: NbdSession, grant: Grant): number {
    const { style, chosen } = this.#of(session);
    return transmissionFlags(grant, style, chosen?.entry === grant.export);
  }

  #infoOrGo(session: NbdSession, option: number, data: Uint8Array) {
    const query = decodeExportQuery(data);
    if (!query) {
      return this.#answerError(session, option, NBD_REP.errInvalid, "the option is malformed");
    }
    const grant = this.exports.decide(query.name);
    if (isRefusal(grant)) {
      return this.#refuse(
        session,
        grant,
        () => this.#answerError(session, option, grant.type, grant.message),
      );
    }
    const answer = [
      ...this.#describe(session, grant, query.wanted).map((info) =>
        encodeOptionReply(option, NBD_REP.info, encodeInfo(info))
      ),
      encodeOptionReply(option, NBD_REP.ack, NOTHING),
    ];
    if (option === NBD_OPTION.info) return this.#answer(session, answer, "options");
    session.sizesAgreed = query.wanted.includes(NBD_INFO.blockSize);
    this.#enter(session, grant, answer);
  }

  /** NBD_INFO_EXPORT always; the others when asked for. */
  #describe(session: NbdSession, grant: Grant, wanted: readonly number[]) {
    const { name, description, volume } = grant.export;
    const asked = new Set(wanted);
    return [
      {
        type: NBD_INFO.export,
        sizeBytes: volume.sizeBytes,
        flags: this.#flags(session, grant),
      } as const,
      ...(asked.has(NBD_INFO.name) ? [{ type: NBD_INFO.name, text: name } as const] : []),
      ...(asked.has(NBD_INFO.description) && description !== ""
        ? [{ type: NBD_INFO.description, text: description } as const]
        : []),
      ...(asked.has(NBD_INFO.blockSize)
        ? [
          {
            type: NBD_INFO.blockSize,
            minimum: 1,
            preferred: PREFERRED_BLOCK_BYTES,
            maximum: this.maxIo,
          } as const,
        ]
        : []),
    ];
  }

  #refuse(session: NbdSession, refusal: Refusal, answer: () => void) {
    if (refusal.type === NBD_REP.errPolicy) this.events.refused(refusal.message);
    if (session.alive) answer();
  }

  /** Puts the session on its export, and answers when no older writer can land a write any more. */
  #enter(session: NbdSession, grant: Grant, answer: readonly Uint8Array[]) {
    const { style, chosen } = this.#of(session);
    session.phase = PHASE.held;
    session.style = style;
    session.contextId = chosen?.entry === grant.export ? chosen.id : undefined;
    this.exports.enter(session, grant);
    const proceed = () => {
      if (session.phase !== PHASE.held || session.export !== grant.export) return;
      if (this.exports.mustWait(session)) grant.export.drainWaiters.push(proceed);
      else this.#answer(session, answer, "transmission");
    };
    proceed();
  }

  #answerError(session: NbdSession, option: number, type: number, message: string) {
    const text = new TextEncoder().encode(message);
    this.#answer(session, [encodeOptionReply(option, type, text)], "options");
  }

  #answer(session: NbdSession, answer: readonly Uint8Array[], then: Then) {
    const conversation = this.#of(session);
    conversation.answer = answer;
    conversation.next = 0;
    conversation.then = then;
    this.#send(session, conversation);
  }

  #send(session: NbdSession, conversation: Conversation) {
    const { out, answer } = conversation;
    let bytes = 0;
    while (conversation.next < answer.length) {
      const piece = answer[conversation.next] as Uint8Array;
      if (bytes + piece.length > OUT_BYTES) break;
      out.bytes.set(piece, bytes);
      bytes += piece.length;
      conversation.next++;
    }
    conversation.sending = true;
    session.sendNegotiation(out.address, bytes);
  }

  /** A piece has left: the next one, or what follows the answer. */
  sent(session: NbdSession): void {
    const conversation = this.#of(session);
    if (conversation.next < conversation.answer.length) return this.#send(session, conversation);
    conversation.sending = false;
    conversation.answer = [];
    if (conversation.then === "end") return session.cut(undefined);
    if (conversation.then === "transmission") {
      session.phase = PHASE.transmission;
      session.transmitted = true;
      this.events.entered(session);
    }
    session.parse();
  }

  #of(session: NbdSession): Conversation {
    return this.#conversations[session.index] as Conversation;
  }
}
