/**
 * NBD in plain text as far as NBD_OPT_STARTTLS, on either side of it (doc/proto.md of the NetworkBlockDevice
 * project, "STARTTLS": the FORCEDTLS mode). Nothing that came before TLS is believed or kept after it; whoever
 * sends anything between NBD_OPT_STARTTLS and the first byte of TLS is cut off.
 */
import type { Socket } from "node:net";
import {
  decodeClientFlags,
  decodeGreeting,
  decodeOptionHeader,
  decodeOptionReplyHeader,
  encodeGreeting,
  encodeOption,
  encodeOptionReply,
  NBD_CLIENT_FLAGS_BYTES,
  NBD_GREETING_BYTES,
  NBD_HANDSHAKE,
  NBD_OPTION,
  NBD_OPTION_HEADER_BYTES,
  NBD_OPTION_REPLY_HEADER_BYTES,
  NBD_REP,
  NBD_STRING_BYTES_MAX,
} from "../../codec/mod.ts";

const FLAGS = NBD_HANDSHAKE.fixedNewstyle | NBD_HANDSHAKE.noZeroes;
/** Options that a client may try before it begins TLS. */
const OPTIONS_MAX = 32;
const OPTION_BYTES_MAX = NBD_STRING_BYTES_MAX + 4096;
const NOTHING = new Uint8Array();

/**
 * Reads exactly `length` bytes; what follows stays in the socket. The socket must not flow.
 * @throws {Error} when it ends or fails before.
 */
function readExactly(socket: Socket, length: number): Promise<Uint8Array> {
  if (length === 0) return Promise.resolve(NOTHING);
  return new Promise((resolve, reject) => {
    const stop = () => {
      socket.off("readable", take).off("end", ended).off("close", ended).off("error", failed);
    };
    const take = () => {
      const bytes: Uint8Array | null = socket.read(length);
      if (bytes === null) return;
      if (bytes.length < length) return ended();
      stop();
      resolve(bytes);
    };
    const ended = () => failed(new Error("it closed the connection"));
    const failed = (error: Error) => {
      stop();
      reject(error);
    };
    socket.on("readable", take).on("end", ended).on("close", ended).on("error", failed);
    if (socket.destroyed || socket.readableEnded) ended();
    else take();
  });
}

/**
 * The server's part: greets, refuses everything but STARTTLS and ABORT, and acknowledges STARTTLS. The socket
 * is paused then, and the next byte in it is TLS.
 * @returns the client's flags, or undefined when it went away in order. @throws {Error} what it did wrong.
 */
export async function awaitStartTls(socket: Socket): Promise<number | undefined> {
  socket.write(encodeGreeting(FLAGS));
  const flags = decodeClientFlags(await readExactly(socket, NBD_CLIENT_FLAGS_BYTES)) ?? 0;
  if ((flags & ~FLAGS) !== 0) throw new Error("its handshake flags are unknown");
  for (let options = 0; options < OPTIONS_MAX; options++) {
    const header = decodeOptionHeader(await readExactly(socket, NBD_OPTION_HEADER_BYTES));
    if (!header) throw new Error("its option has a wrong magic number");
    const { option, length } = header;
    if (length > OPTION_BYTES_MAX) throw new Error("its option is too long");
    await readExactly(socket, length);
    const reply = (type: number, text = "") => {
      socket.write(encodeOptionReply(option, type, new TextEncoder().encode(text)));
    };
    if (option === NBD_OPTION.abort) return void reply(NBD_REP.ack);
    // The option has no error reply: the specification ends the session.
    if (option === NBD_OPTION.exportName) throw new Error("it wants an export without TLS");
    if (option !== NBD_OPTION.startTls) reply(NBD_REP.errTlsRequired, "TLS must be begun first");
    else if (length > 0) reply(NBD_REP.errInvalid, "STARTTLS takes no data");
    else {
      if (socket.readableLength > 0) throw new Error("it sends more before TLS has begun");
      // First: what comes from now on is not for this layer, even when it comes before the next line ends.
      socket.pause();
      reply(NBD_REP.ack);
      return flags;
    }
  }
  throw new Error("it goes on without TLS");
}

/** Reads the greeting of a server. @returns its flags. @throws {Error} for anything but fixed newstyle. */
export async function readGreeting(socket: Socket): Promise<number> {
  const flags = decodeGreeting(await readExactly(socket, NBD_GREETING_BYTES));
  if (flags === undefined || (flags & NBD_HANDSHAKE.fixedNewstyle) === 0) {
    throw new Error("it does not speak fixed newstyle NBD");
  }
  return flags & FLAGS;
}

/** Greets a client as the server behind us did. @returns the four bytes of its flags, to be passed on. */
export async function greet(socket: Socket, flags: number): Promise<Uint8Array> {
  socket.write(encodeGreeting(flags));
  return await readExactly(socket, NBD_CLIENT_FLAGS_BYTES);
}

/** The client's part: asks for TLS. The socket is paused then. @throws {Error} why it can not begin. */
export async function askForTls(socket: Socket): Promise<void> {
  socket.write(encodeOption(NBD_OPTION.startTls, NOTHING));
  const header = decodeOptionReplyHeader(await readExactly(socket, NBD_OPTION_REPLY_HEADER_BYTES));
  if (header?.option !== NBD_OPTION.startTls || header.length > OPTION_BYTES_MAX) {
    throw new Error("its answer is malformed");
  }
  const said = new TextDecoder().decode(await readExactly(socket, header.length)).slice(0, 200);
  if (header.type !== NBD_REP.ack) {
    throw new Error(`it does not offer TLS${said === "" ? "" : ` (${said})`}`);
  }
  if (socket.readableLength > 0) throw new Error("it sends more before TLS has begun");
  socket.pause();
}
