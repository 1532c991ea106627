/**
 * NBD clients over TCP and TLS, on their way to an NBD server on a Unix socket. Each connection is greeted in
 * plain text, must begin TLS at once, shows a certificate where one is demanded, and is then joined to a
 * connection of its own behind.
 *
 * Faults: a client that is slow, silent or wrong costs itself its connection and nobody else anything: a
 * handshake has HANDSHAKE_MS, and of too many handshakes the oldest makes room. What a client sends is held in
 * sockets' bounded buffers only.
 * Not promised: who the client is. A certificate that our authority signed lets it in; what it may write is
 * decided behind.
 */
import { connect as connectPlain, createServer, type Server, type Socket } from "node:net";
import { createServer as createTlsServer, type TLSSocket } from "node:tls";
import { NBD_HANDSHAKE } from "../../codec/mod.ts";
import { type Clock, PsmaError } from "../../core/mod.ts";
import { Credentials } from "./relay_credentials.ts";
import { clientFault } from "./relay_faults.ts";
import { join } from "./relay_join.ts";
import type { OnRelayEvent, ServeTls } from "./relay_messages.ts";
import { awaitStartTls, readGreeting } from "./relay_plain.ts";

const HANDSHAKE_MS = 10_000;
const CONNECTIONS_MAX = 256;
export const HANDSHAKES_MAX = 64;
const KEEP_ALIVE_MS = 30_000;
/** TLS says a moment after the end why it ended. */
const REASON_WITHIN_MS = 100;

export interface TlsListenerOptions {
  readonly serve: ServeTls;
  readonly clock: Clock;
  readonly onEvent: OnRelayEvent;
}

export class TlsListener {
  readonly #options: TlsListenerOptions;
  readonly #credentials: Credentials;
  readonly #server: Server;
  /** Connections in a handshake, oldest first, and what ends each with a reason. */
  readonly #shaking = new Map<Socket, (why: string) => void>();
  #connections = 0;

  /** @throws {PsmaError} config/tls-file */
  constructor(options: TlsListenerOptions) {
    this.#options = options;
    const { serve, clock, onEvent } = options;
    const { cert_file, key_file, client_ca_file } = serve;
    this.#credentials = new Credentials({
      files: {
        cert_file,
        key_file,
        ...(client_ca_file === undefined ? {} : { ca_file: client_ca_file }),
      },
      clock,
      onFault: (message) => onEvent("nbd.tls-certificate", "error", message),
    });
    this.#credentials.current();
    this.#server = createServer(
      { allowHalfOpen: true, noDelay: true },
      (socket) => this.#accepted(socket),
    );
  }

  /** @returns the port. @throws {PsmaError} state/address-in-use, config/listen */
  listen(): Promise<number> {
    const { host, port } = this.#options.serve.listen;
    return new Promise((resolve, reject) => {
      const failed = (error: Error) => reject(listenError(`${host}:${port}`, error));
      this.#server.once("error", failed);
      this.#server.listen(port, host, () => {
        this.#server.off("error", failed);
        // Such as "out of descriptors": the connection is lost, the listener is not.
        this.#server.on("error", (error: Error) => this.#refused("a client", error.message));
        const address = this.#server.address();
        resolve(typeof address === "object" && address !== null ? address.port : port);
      });
    });
  }

  #accepted(socket: Socket): void {
    const from = `${socket.remoteAddress}:${socket.remotePort}`;
    // Without a listener an error would be the thread's; whoever waits for the socket hears of it too.
    socket.on("error", () => {});
    if (this.#connections >= CONNECTIONS_MAX) {
      socket.destroy();
      return this.#refused(from, `${CONNECTIONS_MAX} clients are connected`);
    }
    if (this.#shaking.size >= HANDSHAKES_MAX) {
      const [giveUp] = this.#shaking.values();
      giveUp?.("it was the slowest of too many that begin TLS");
    }
    this.#connections++;
    socket.once("close", () => this.#connections--);
    socket.setKeepAlive(true, KEEP_ALIVE_MS);
    this.#carry(socket).catch((error: Error) => {
      socket.destroy();
      this.#refused(from, error.message);
    });
  }

  async #carry(socket: Socket): Promise<void> {
    const { handshake_ms = HANDSHAKE_MS } = this.#options.serve;
    let reason: string | undefined;
    const giveUp = (why: string) => {
      reason = why;
      socket.destroy();
      this.#shaking.delete(socket);
    };
    const late = `it took more than ${handshake_ms / 1000} s to begin TLS`;
    const timer = setTimeout(giveUp, handshake_ms, late);
    this.#shaking.set(socket, giveUp);
    let joined: Promise<void> | undefined;
    try {
      const flags = await awaitStartTls(socket);
      if (flags === undefined) return void socket.end();
      const tls = await this.#secure(socket);
      joined = join(tls, await this.#behind(flags, socket));
    } catch (error) {
      throw reason === undefined ? error : new Error(reason);
    } finally {
      clearTimeout(timer);
      this.#shaking.delete(socket);
    }
    await joined;
    socket.destroy();
  }

  /**
   * TLS as its server. A server object for each connection: it checks the client's certificate, which a bare
   * TLSSocket leaves to its owner, and it has the certificates of this moment.
   */
  #secure(socket: Socket): Promise<TLSSocket> {
    const demanded = this.#options.serve.client_ca_file !== undefined;
    const server = createTlsServer({
      ...this.#credentials.current(),
      minVersion: "TLSv1.2",
      requestCert: demanded,
      rejectUnauthorized: demanded,
      pauseOnConnect: true,
    });
    // A client that goes away inside the handshake ends it.
    socket.allowHalfOpen = false;
    return new Promise((resolve, reject) => {
      server.once("secureConnection", (tls) => {
        tls.on("error", () => {});
        tls.allowHalfOpen = true;
        if (!demanded || tls.authorized) return resolve(tls);
        tls.destroy();
        reject(new Error("its certificate was not checked"));
      });
      server.on("tlsClientError", (error, tls) => {
        const refusal = tls.authorizationError as unknown as string | null;
        reject(new Error(clientFault(error, refusal ?? undefined)));
      });
      const closed = () => reject(new Error("it closed the connection during the handshake"));
      socket.once("close", () => setTimeout(closed, REASON_WITHIN_MS));
      server.emit("connection", socket);
    });
  }

  /** A connection to the server behind, as far as the client has come in plain text. */
  async #behind(flags: number, client: Socket): Promise<Socket> {
    const inner = connectPlain({ path: this.#options.serve.forward_to, allowHalfOpen: true });
    inner.on("error", () => {});
    // Also while the server behind says nothing.
    client.once("close", () => inner.destroy());
    try {
      const offered = await readGreeting(inner);
      if ((flags & ~offered) !== 0) throw new Error("the server behind knows less than we said");
      const bytes = new Uint8Array(4);
      new DataView(bytes.buffer).setUint32(
        0,
        flags & (NBD_HANDSHAKE.fixedNewstyle | NBD_HANDSHAKE.noZeroes),
      );
      inner.write(bytes);
      return inner;
    } catch (error) {
      inner.destroy();
      throw new Error(`the server behind can not be reached: ${(error as Error).message}`);
    }
  }

  #refused(from: string, why: string) {
    this.#options.onEvent("nbd.tls-refused", "warning", `Cannot serve ${from} over TLS: ${why}`);
  }
}

function listenError(where: string, cause: Error): PsmaError {
  const inUse = (cause as Error & { readonly code?: string }).code === "EADDRINUSE";
  return new PsmaError(
    inUse ? "state/address-in-use" : "config/listen",
    `Cannot listen on ${where}: ${inUse ? "another process listens there" : cause.message}`,
    { hint: "Stop the other process, or choose another address.", cause },
  );
}
