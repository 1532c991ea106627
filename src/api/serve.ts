/** Puts the API on a loopback port or a Unix socket, and takes it off again. */
import { type Clock, type Log, PsmaError } from "../core/mod.ts";
import type { Agent } from "../agent/mod.ts";
import { type Address, formatAddress, parseAddress } from "./address.ts";
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
  const address = parseAddress(options.listen);
  const closing = new AbortController();
  const api = createApi({
    agent: options.agent,
    clock: options.clock,
    token: options.token,
    version: options.version,
    closing: closing.signal,
    check_host: "host" in address,
  });
  if ("path" in address) await removeStaleSocket(address.path);
  const server = listen(address, api);
  if ("path" in address) Deno.chmodSync(address.path, 0o600);
  const url = formatAddress(
    "host" in address ? { host: address.host, port: (server.addr as Deno.NetAddr).port } : address,
  );
  options.log.info("the API listens", { url });
  return {
    url,
    async stop() {
      closing.abort();
      await server.shutdown();
    },
  };
}

function listen(address: Address, api: (request: Request) => Response | Promise<Response>) {
  const where = "host" in address
    ? { hostname: address.host, port: address.port }
    : { path: address.path };
  try {
    return Deno.serve({ ...where, onListen: () => {} }, (request) => api(withoutSignal(request)));
  } catch (cause) {
    if (!(cause instanceof Deno.errors.AddrInUse)) throw cause;
    throw new PsmaError(
      "state/address-in-use",
      `Cannot listen on ${formatAddress(address)}: the address is in use`,
      { hint: "Another psma may be running; or set api.listen.", cause },
    );
  }
}

/**
 * The same request without the runtime's abort signal, which fires on success too and says so on standard
 * error when anything looks at it. Streams learn of a client that left by being cancelled.
 */
function withoutSignal({ url, method, headers, body }: Request): Request {
  return new Request(url, { method, headers, body });
}

/** A socket file that nobody answers on is left from a process that was killed. */
async function removeStaleSocket(path: string): Promise<void> {
  try {
    (await Deno.connect({ transport: "unix", path })).close();
  } catch (error) {
    if (error instanceof Deno.errors.ConnectionRefused) Deno.removeSync(path);
  }
}
