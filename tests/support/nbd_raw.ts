/** An NBD client by hand, byte by byte, for what no well-behaved client sends. */
import {
  decodeChunk,
  decodeExtendedChunk,
  decodeOptionReplyHeader,
  decodeSimpleReply,
  encodeClientFlags,
  encodeContextQuery,
  encodeExportQuery,
  encodeExtendedRequest,
  encodeOption,
  encodeRequest,
  NBD_CHUNK_BYTES,
  NBD_CHUNK_FLAG,
  NBD_EXTENDED_CHUNK_BYTES,
  NBD_EXTENDED_REQUEST_BYTES,
  NBD_GREETING_BYTES,
  NBD_HANDSHAKE,
  NBD_INFO,
  NBD_OPTION,
  NBD_OPTION_REPLY_HEADER_BYTES,
  NBD_REP,
  NBD_REQUEST_BYTES,
  NBD_SIMPLE_REPLY_BYTES,
  type NbdSimpleReply,
} from "../../src/codec/mod.ts";

/** One answer to an option. */
export interface OptionReply {
  readonly option: number;
  readonly type: number;
  readonly data: Uint8Array;
}

export interface RawRequest {
  readonly type: number;
  readonly flags?: number;
  readonly cookie?: number;
  readonly at?: number;
  readonly length?: number;
  readonly payload?: Uint8Array;
}

/** What to negotiate before an export is entered. */
export interface RawWish {
  readonly style?: "simple" | "structured" | "extended";
  readonly contexts?: readonly string[];
  /** Ask for the server's block sizes, and so promise to keep to them. */
  readonly sizes?: boolean;
}

/** One chunk of a structured or extended reply. */
export interface RawChunk {
  readonly type: number;
  readonly done: boolean;
  readonly cookie: number;
  /** Only with extended headers. */
  readonly at: number;
  readonly payload: Uint8Array;
}

export class RawNbd implements Disposable {
  #open = true;
  #extended = false;

  private constructor(readonly connection: Deno.Conn) {}

  static async connect(path: string): Promise<RawNbd> {
    return new RawNbd(await Deno.connect({ transport: "unix", path }));
  }

  /** Connects to a port of this machine. */
  static async dial(port: number): Promise<RawNbd> {
    return new RawNbd(await Deno.connect({ hostname: "127.0.0.1", port }));
  }

  /** Connects and goes through negotiation. @throws {Error} with the server's words when refused. */
  static async enter(path: string, name: string, wish: RawWish = {}): Promise<RawNbd> {
    const raw = await RawNbd.connect(path);
    await raw.greet();
    const { style = "simple", contexts = [], sizes = false } = wish;
    const nothing = new Uint8Array();
    if (style === "structured") await raw.option(NBD_OPTION.structuredReply, nothing);
    if (style === "extended") await raw.option(NBD_OPTION.extendedHeaders, nothing);
    raw.#extended = style === "extended";
    if (contexts.length > 0) {
      const query = encodeContextQuery({ name, queries: contexts });
      await raw.option(NBD_OPTION.setMetaContext, query);
    }
    const wanted = sizes ? [NBD_INFO.blockSize] : [];
    const replies = await raw.option(NBD_OPTION.go, encodeExportQuery({ name, wanted }));
    const last = replies.at(-1);
    if (last?.type === NBD_REP.ack) return raw;
    raw[Symbol.dispose]();
    throw new Error(new TextDecoder().decode(last?.data));
  }

  async greet(flags = NBD_HANDSHAKE.fixedNewstyle | NBD_HANDSHAKE.noZeroes): Promise<void> {
    await this.read(NBD_GREETING_BYTES);
    await this.write(encodeClientFlags(flags));
  }

  async write(bytes: Uint8Array): Promise<void> {
    for (let sent = 0; sent < bytes.length;) {
      sent += await this.connection.write(bytes.subarray(sent));
    }
  }

  /** @throws {Error} when the server closes before. */
  async read(length: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(length);
    for (let got = 0; got < length;) {
      const count = await this.connection.read(bytes.subarray(got));
      if (count === null) throw new Error(`the server closed after ${got} of ${length} bytes`);
      got += count;
    }
    return bytes;
  }

  /** Sends an option and reads its answer to the end. */
  async option(option: number, data: Uint8Array): Promise<OptionReply[]> {
    await this.write(encodeOption(option, data));
    return await this.optionReplies();
  }

  async optionReplies(): Promise<OptionReply[]> {
    const replies: OptionReply[] = [];
    for (;;) {
      const header = decodeOptionReplyHeader(await this.read(NBD_OPTION_REPLY_HEADER_BYTES));
      if (!header) throw new Error("malformed option reply");
      const { option, type, length } = header;
      replies.push({ option, type, data: await this.read(length) });
      if (type === NBD_REP.ack || type >= NBD_REP.errUnsupported) return replies;
    }
  }

  async send(request: RawRequest): Promise<void> {
    const payload = request.payload ?? new Uint8Array();
    const headerBytes = this.#extended ? NBD_EXTENDED_REQUEST_BYTES : NBD_REQUEST_BYTES;
    const bytes = new Uint8Array(headerBytes + payload.length);
    (this.#extended ? encodeExtendedRequest : encodeRequest)(
      new DataView(bytes.buffer),
      0,
      request.type,
      request.flags ?? 0,
      0,
      request.cookie ?? 1,
      request.at ?? 0,
      request.length ?? payload.length,
    );
    bytes.set(payload, headerBytes);
    await this.write(bytes);
  }

  /** Reads one chunk. @throws {Error} when something else comes. */
  async chunk(): Promise<RawChunk> {
    const chunk = { flags: 0, type: 0, cookieHigh: 0, cookieLow: 0, at: 0, length: 0 };
    const bytes = await this.read(this.#extended ? NBD_EXTENDED_CHUNK_BYTES : NBD_CHUNK_BYTES);
    const decode = this.#extended ? decodeExtendedChunk : decodeChunk;
    if (!decode(new DataView(bytes.buffer), 0, chunk)) throw new Error("no chunk");
    const payload = await this.read(chunk.length);
    const { type, flags, cookieLow, at } = chunk;
    return { type, done: (flags & NBD_CHUNK_FLAG.done) !== 0, cookie: cookieLow, at, payload };
  }

  /** Reads chunks up to the last of a reply. */
  async chunks(): Promise<RawChunk[]> {
    const chunks: RawChunk[] = [];
    do chunks.push(await this.chunk()); while (chunks.at(-1)?.done === false);
    return chunks;
  }

  /** Sends a request and reads the chunks of its answer. */
  async askChunks(request: RawRequest): Promise<RawChunk[]> {
    await this.send(request);
    return await this.chunks();
  }

  async reply(): Promise<NbdSimpleReply> {
    const bytes = await this.read(NBD_SIMPLE_REPLY_BYTES);
    const reply = { error: 0, cookieHigh: 0, cookieLow: 0 };
    if (!decodeSimpleReply(new DataView(bytes.buffer), 0, reply)) throw new Error("no reply");
    return reply;
  }

  /** Sends a request without data in its answer. @returns its error, 0 for success. */
  async ask(request: RawRequest): Promise<number> {
    await this.send(request);
    return (await this.reply()).error;
  }

  /** Waits until the server ends the connection. @returns bytes that still came. */
  async untilClosed(): Promise<number> {
    const bytes = new Uint8Array(4096);
    let came = 0;
    try {
      for (;;) {
        const count = await this.connection.read(bytes);
        if (count === null) return came;
        came += count;
      }
    } catch {
      // Reset: closed as well.
      return came;
    }
  }

  [Symbol.dispose](): void {
    if (this.#open) this.connection.close();
    this.#open = false;
  }
}
