/** Puts the API on a loopback port or a Unix socket, and takes it off again. */
import { type Clock, type Log, parseListen, serveHttp } from "../core/mod.ts";
import type { Agent } from "../agent/mod.ts";
import { createApi } from "./app.ts";

export interface ServeApiOptions {
  readonly agent: Agent;
  readonly clock: Clock;
  readonly log: Log;
  readonly token: string;
  readonly version: string;
  /** `127.0.0.1:9310`, or `unix:/run/psma.sock`. Port 0: any. */
  readonly listen: string;
}

export interface ApiServer {
  /** What a client is given. */
  readonly url: string;
  /** Ends live streams, lets answers in progress finish, frees the address. */
  stop(): Promise<void>;
}

/** @throws {PsmaError} config/listen beyond loopback, state/address-in-use */
export async function serveApi(options: ServeApiOptions): Promise<ApiServer> {
  const address = parseListen(options.listen);
  const closing = new AbortController();
  const api = createApi({
    agent: options.agent,
    clock: options.clock,
    log: options.log,
    token: options.token,
    version: options.version,
    closing: closing.signal,
    check_host: "host" in address,
  });
  const server = await serveHttp(address, (request) => api(withoutSignal(request)));
  options.log.info("the API listens", { url: server.url });
  return {
    url: server.url,
    async stop() {
      closing.abort();
      await server.shutdown();
    },
  };
}

/**
 * The same request without the runtime's abort signal, which fires on success too and says so on standard
 * error when anything looks at it. Streams learn of a client that left by being cancelled.
 */
function withoutSignal({ url, method, headers, body }: Request): Request {
  return new Request(url, { method, headers, body });
}
