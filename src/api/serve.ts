/** Puts the API on a loopback port or a Unix socket, first the address and then an agent, and takes it off again. */
import { type Clock, listenHttp, type Log, parseListen } from "../core/mod.ts";
import type { Agent } from "../agent/mod.ts";
import { createApi } from "./app.ts";

export interface ServeApiOptions {
  readonly agent: Agent;
  readonly clock: Clock;
  readonly log: Log;
  readonly token: string;
  readonly version: string;
}

export interface ApiServer {
  /** What a client is given. */
  readonly url: string;
  /** Answers for an agent; until then every request is told that there is none yet. */
  serve(options: ServeApiOptions): void;
  /** Ends live streams, lets answers in progress finish, frees the address. Idempotent. */
  stop(): Promise<void>;
}

/**
 * Takes the address, before there is anything to serve: nothing was made when somebody else has it.
 * @param listen `127.0.0.1:9310`, or `unix:/run/psma.sock`. Port 0: any.
 * @throws {PsmaError} config/listen also beyond loopback, state/address-in-use, forbidden/listen
 */
export async function openApi(listen: string): Promise<ApiServer> {
  const address = parseListen(listen);
  const server = await listenHttp(address, "api.listen");
  const closing = new AbortController();
  return {
    url: server.url,
    serve(options) {
      const api = createApi({ ...options, closing: closing.signal, check_host: "host" in address });
      server.answerWith((request) => api(withoutSignal(request)));
      options.log.info("the API listens", { url: server.url });
    },
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
