/**
 * A connection to an NBD export on a Unix socket, negotiated by blocking calls: to be handed to the kernel's
 * client, which knows no negotiation and no replies but the simple ones. For a process of its own, never for
 * the thread that serves the export.
 */
import { PsmaError } from "../core/mod.ts";
import {
  decodeGreeting,
  decodeInfo,
  decodeOptionReplyHeader,
  encodeClientFlags,
  encodeExportQuery,
  encodeOption,
  NBD_GREETING_BYTES,
  NBD_HANDSHAKE,
  NBD_INFO,
  NBD_OPTION,
  NBD_OPTION_REPLY_HEADER_BYTES,
  NBD_REP,
} from "../codec/mod.ts";
import { mustSucceed } from "./attempt.ts";
import { libc } from "./libc.ts";
import { openSocket, sockaddrOf } from "./sockets.ts";

/** What a server that names no limit must take ("Block size constraints" of NBD's protocol). */
const DEFAULT_BLOCK_BYTES_MAX = 32 * 1024 * 1024;
const OPTION_BYTES_MAX = 16 * 1024;

/** An export's connection in transmission phase; disposing of it closes this process's descriptor only. */
export class NbdLine implements Disposable {
  sizeBytes = 0;
  /** NBD_FLAG bits. */
  flags = 0;
  /** Bytes of the largest read or write that the server takes. */
  blockBytesMax = DEFAULT_BLOCK_BYTES_MAX;
  readonly fd: number;

  /** Connects and enters the export. @throws {PsmaError} store/nbd-protocol, not-found/export, sys/errno-N. */
  constructor(readonly socket: string, readonly exportName: string) {
    const where = sockaddrOf({ path: socket });
    this.fd = openSocket(where.family);
    try {
      mustSucceed(
        `connect to ${socket}`,
        () => libc().connect(this.fd, where.bytes, where.bytes.length),
      );
      this.#negotiate();
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  /** The number by which the kernel lists the socket, whoever holds it. */
  get inode(): string {
    return /\d+/.exec(Deno.readLinkSync(`/proc/self/fd/${this.fd}`))?.[0] ?? "";
  }

  [Symbol.dispose](): void {
    libc().close(this.fd);
  }

  #negotiate(): void {
    const server = decodeGreeting(this.#receive(NBD_GREETING_BYTES));
    if (server === undefined || (server & NBD_HANDSHAKE.fixedNewstyle) === 0) {
      throw this.#broken("it does not speak fixed newstyle NBD");
    }
    this.#send(encodeClientFlags(server & (NBD_HANDSHAKE.fixedNewstyle | NBD_HANDSHAKE.noZeroes)));
    const query = encodeExportQuery({ name: this.exportName, wanted: [NBD_INFO.blockSize] });
    this.#send(encodeOption(NBD_OPTION.go, query));
    while (true) {
      const header = decodeOptionReplyHeader(this.#receive(NBD_OPTION_REPLY_HEADER_BYTES));
      if (header?.option !== NBD_OPTION.go || header.length > OPTION_BYTES_MAX) {
        throw this.#broken("its answer is malformed");
      }
      const data = this.#receive(header.length);
      if (header.type === NBD_REP.ack) return;
      if (header.type !== NBD_REP.info) throw this.#refused(header.type, data);
      const info = decodeInfo(data);
      if (info?.type === NBD_INFO.export) {
        this.sizeBytes = info.sizeBytes;
        this.flags = info.flags;
      }
      if (info?.type === NBD_INFO.blockSize) this.blockBytesMax = info.maximum;
    }
  }

  #send(bytes: Uint8Array<ArrayBuffer>): void {
    for (let sent = 0; sent < bytes.length;) {
      const rest = bytes.subarray(sent);
      sent += mustSucceed(
        `send to ${this.socket}`,
        () => Number(libc().write(this.fd, rest, BigInt(rest.length))),
      );
    }
  }

  #receive(length: number): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(length);
    for (let got = 0; got < length;) {
      const rest = bytes.subarray(got);
      const count = mustSucceed(
        `receive from ${this.socket}`,
        () => Number(libc().read(this.fd, rest, BigInt(rest.length))),
      );
      if (count === 0) throw this.#broken("it closed the connection");
      got += count;
    }
    return bytes;
  }

  #refused(type: number, data: Uint8Array): PsmaError {
    const said = new TextDecoder().decode(data).slice(0, 200) || `0x${type.toString(16)}`;
    const code = type === NBD_REP.errUnknown ? "not-found/export" : "store/nbd-refused";
    return new PsmaError(code, `Cannot open ${this.exportName} on ${this.socket}: ${said}`);
  }

  #broken(reason: string): PsmaError {
    const message = `Cannot open ${this.exportName} on ${this.socket}: ${reason}`;
    return new PsmaError("store/nbd-protocol", message);
  }
}
