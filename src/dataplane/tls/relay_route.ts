/**
 * The way to an NBD server over TCP and TLS, for an NBD client that knows only Unix sockets: each connection to
 * the route's socket gets one of its own to the server, whose certificate and name are checked before a byte of
 * the client's options leaves.
 *
 * Faults: a server that is away, that offers no TLS or shows a wrong certificate ends the inner connection at
 * once; the client tries again as it does for any lost connection. Why is told as an event and kept for
 * whoever asks.
 */
import { connect as connectPlain, createServer, type Socket } from "node:net";
import { connect as connectTls, type TLSSocket } from "node:tls";
import { isIP } from "node:net";
import type { Clock } from "../../core/mod.ts";
import { Credentials } from "./relay_credentials.ts";
import { serverFault, silenceAfterHandshake } from "./relay_faults.ts";
import { join } from "./relay_join.ts";
import type { DialTls, OnRelayEvent } from "./relay_messages.ts";
import { askForTls, greet, readGreeting } from "./relay_plain.ts";

/** Less than our NBD client waits for a handshake, so that it is told why. */
const HANDSHAKE_MS = 8_000;
const CONNECTIONS_MAX = 64;
const KEEP_ALIVE_MS = 30_000;

export interface TlsRouteOptions {
  readonly dial: DialTls;
  readonly clock: Clock;
  readonly onEvent: OnRelayEvent;
}

export class TlsRoute {
  readonly #options: TlsRouteOptions;
  readonly #credentials: Credentials;
  #connections = 0;
  /** Why the latest connection could not be made, or ended; null when it is fine. */
  fault: string | null = null;

  /** @throws {PsmaError} config/tls-file unless `patient`. */
  constructor(options: TlsRouteOptions) {
    this.#options = options;
    const { dial, clock, onEvent } = options;
    this.#credentials = new Credentials({
      files: dial.files,
      clock,
      onFault: (message) => onEvent("nbd.tls-certificate", "error", message),
    });
    if (dial.patient !== true) this.#credentials.current();
  }

  /** Makes the Unix socket. @throws {Error} */
  listen(): Promise<void> {
    const server = createServer({ allowHalfOpen: true }, (inner) => this.#accepted(inner));
    return new Promise((resolve, reject) => {
      server.once("error", reject);
      server.listen(this.#options.dial.path, () => {
        server.off("error", reject);
        server.on("error", (error: Error) => this.#failed(error));
        resolve();
      });
    });
  }

  #accepted(inner: Socket): void {
    inner.on("error", () => {});
    if (this.#connections >= CONNECTIONS_MAX) return void inner.destroy();
    this.#connections++;
    inner.once("close", () => this.#connections--);
    this.#carry(inner).catch((error: Error) => {
      inner.destroy();
      this.#failed(error);
    });
  }

  async #carry(inner: Socket): Promise<void> {
    const outer = connectPlain({ ...this.#options.dial.address, allowHalfOpen: true });
    outer.on("error", () => {});
    outer.setNoDelay(true);
    outer.setKeepAlive(true, KEEP_ALIVE_MS);
    const giveUp = () => outer.destroy();
    inner.once("close", giveUp);
    let expired = false;
    const timer = setTimeout(() => {
      expired = true;
      outer.destroy();
    }, HANDSHAKE_MS);
    let tls: TLSSocket;
    try {
      outer.write(await greet(inner, await readGreeting(outer)));
      await askForTls(outer);
      tls = await this.#secure(outer);
      this.fault = null;
    } catch (error) {
      outer.destroy();
      // Whoever asked has gone: then nobody is to be told why.
      if (inner.destroyed) return;
      throw expired ? new Error(`it did not answer within ${HANDSHAKE_MS / 1000} s`) : error;
    } finally {
      clearTimeout(timer);
      inner.off("close", giveUp);
    }
    this.#watch(tls, inner);
    await join(inner, tls);
    outer.destroy();
  }

  /**
   * Notes a failure at once, before the inner connection ends: whoever sees that asks why. With TLS 1.3 a server
   * says only after the handshake that our certificate is missing or not good, if its words arrive at all.
   */
  #watch(tls: TLSSocket, inner: Socket): void {
    const { bytesWritten } = inner;
    const ended = () => {
      const silent = inner.bytesWritten === bytesWritten && !inner.destroyed;
      if (silent && this.fault === null) this.#failed(silenceAfterHandshake(this.#options.dial));
    };
    tls.on("error", (error: Error) => this.#failed(error));
    tls.once("end", ended);
    tls.once("close", ended);
  }

  #secure(outer: Socket): Promise<TLSSocket> {
    const { server_name } = this.#options.dial;
    const tls = connectTls({
      ...this.#credentials.current(),
      socket: outer,
      host: server_name,
      ...(isIP(server_name) === 0 ? { servername: server_name } : {}),
      minVersion: "TLSv1.2",
      rejectUnauthorized: true,
    });
    return new Promise((resolve, reject) => {
      tls.on("error", reject);
      tls.once("close", () => reject(new Error("it closed the connection")));
      tls.once("secureConnect", () => {
        if (tls.authorized) return resolve(tls);
        tls.destroy();
        reject(new Error("its certificate was not checked"));
      });
    });
  }

  #failed(error: Error): void {
    const { dial, onEvent } = this.#options;
    const { address, server_name, files } = dial;
    const where = "path" in address ? address.path : `${address.host}:${address.port}`;
    const why = serverFault(error, { server_name, files });
    this.fault = `Cannot reach ${where} over TLS: ${why}`;
    onEvent("nbd.tls-failed", "warning", this.fault);
  }
}
