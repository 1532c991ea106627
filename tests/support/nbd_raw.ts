/** An NBD client by hand, byte by byte, for what no well-behaved client sends. */
import {
  decodeOptionReplyHeader,
  decodeSimpleReply,
  encodeClientFlags,
  encodeExportQuery,
  encodeOption,
  encodeRequest,
  NBD_GREETING_BYTES,
  NBD_HANDSHAKE,
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

export class RawNbd implements Disposable {
  #open = true;

  private constructor(readonly connection: Deno.Conn) {}

  static async connect(path: string): Promise<RawNbd> {
    return new RawNbd(await Deno.connect({ transport: "unix", path }));
  }

  /** Connects and goes through negotiation. @throws {Error} with the server's words when refused. */
  static async enter(path: string, name: string): Promise<RawNbd> {
    const raw = await RawNbd.connect(path);
    await raw.greet();
    const replies = await raw.option(
      NBD_OPTION.go,
      encodeExportQuery({ name, wanted: [] }),
    );
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
      if (type !== NBD_REP.info && type !== NBD_REP.server) return replies;
    }
  }

  async send(request: RawRequest): Promise<void> {
    const payload = request.payload ?? new Uint8Array();
    const bytes = new Uint8Array(NBD_REQUEST_BYTES + payload.length);
    encodeRequest(
      new DataView(bytes.buffer),
      0,
      request.type,
      request.flags ?? 0,
      0,
      request.cookie ?? 1,
      request.at ?? 0,
      request.length ?? payload.length,
    );
    bytes.set(payload, NBD_REQUEST_BYTES);
    await this.write(bytes);
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
