/** Puts an HTTP handler on a loopback port or a Unix socket that only its owner may open. */
import { PsmaError } from "./errors.ts";
import { formatListen, type ListenAddress } from "./loopback.ts";

export type HttpHandler = (request: Request) => Response | Promise<Response>;

export interface HttpServer {
  /** What a client is given: `http://127.0.0.1:9310` with the real port, or `unix:/path`. */
  readonly url: string;
  /** Lets answers in progress finish, and frees the address. */
  shutdown(): Promise<void>;
}

/**
 * Serves; port 0 takes any. A socket's file that nobody answers on is replaced: its server was killed.
 * @throws {PsmaError} state/address-in-use, forbidden/listen, config/listen
 */
export async function serveHttp(address: ListenAddress, handler: HttpHandler): Promise<HttpServer> {
  try {
    if ("path" in address) await removeStaleSocket(address.path);
    const where = "path" in address
      ? { path: address.path }
      : { hostname: address.host, port: address.port };
    const server = Deno.serve({ ...where, onListen: () => {} }, handler);
    if ("path" in address) await makePrivate(address.path, server);
    const port = server.addr.transport === "tcp" ? server.addr.port : 0;
    const url = formatListen("path" in address ? address : { host: address.host, port });
    return { url, shutdown: () => server.shutdown() };
  } catch (cause) {
    throw listenError(address, cause);
  }
}

/**
 * Removes a Unix socket that nobody listens on; leaves everything else: another kind of file is someone's.
 * @throws what keeps it from knowing or removing; Deno.errors.AddrInUse when somebody answers.
 */
async function removeStaleSocket(path: string): Promise<void> {
  try {
    if (!(await Deno.lstat(path)).isSocket) {
      throw new Deno.errors.AddrInUse("a file that is no socket has the name");
    }
    (await Deno.connect({ transport: "unix", path })).close();
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return;
    if (!(error instanceof Deno.errors.ConnectionRefused)) throw error;
    return await Deno.remove(path);
  }
  throw new Deno.errors.AddrInUse("another process answers there");
}

async function makePrivate(path: string, server: Deno.HttpServer): Promise<void> {
  try {
    await Deno.chmod(path, 0o600);
  } catch (error) {
    await server.shutdown();
    throw error;
  }
}

function listenError(address: ListenAddress, cause: unknown): PsmaError {
  const what = `Cannot listen on ${formatListen(address)}`;
  if (cause instanceof Deno.errors.AddrInUse) {
    const why = "path" in address ? cause.message : "another process listens there";
    return new PsmaError("state/address-in-use", `${what}: ${why}`, {
      hint: "Stop the other process, or choose another address.",
      cause,
    });
  }
  const why = cause instanceof Error ? cause.message : String(cause);
  const denied = cause instanceof Deno.errors.PermissionDenied;
  return new PsmaError(denied ? "forbidden/listen" : "config/listen", `${what}: ${why}`, {
    hint: "Choose another address, or the user that may listen there.",
    cause,
  });
}
