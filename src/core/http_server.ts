/**
 * HTTP on a loopback port or a Unix socket that only its owner may open. The address is taken first: a
 * process that may not have it ends before it has made anything. Until there is a handler, requests are told so.
 */
import { PsmaError } from "./errors.ts";
import { formatListen, type ListenAddress } from "./loopback.ts";
import { problemResponse } from "./problem.ts";

export type HttpHandler = (request: Request) => Response | Promise<Response>;

export interface HttpServer {
  /** What a client is given: `http://127.0.0.1:9310` with the real port, or `unix:/path`. */
  readonly url: string;
  /** From now on this answers; before, requests get 503 `unavailable/starting`. */
  answerWith(handler: HttpHandler): void;
  /** Lets answers in progress finish, and frees the address. Idempotent. */
  shutdown(): Promise<void>;
}

/**
 * Listens; port 0 takes any. A socket's file that nobody answers on is replaced: its server was killed.
 * @param setting where a person would choose another address: `api.listen`.
 * @throws {PsmaError} state/address-in-use, forbidden/listen, config/listen
 */
export async function listenHttp(address: ListenAddress, setting: string): Promise<HttpServer> {
  let answer: HttpHandler = notYet;
  try {
    if ("path" in address) await removeStaleSocket(address.path);
    const where = "path" in address
      ? { path: address.path }
      : { hostname: address.host, port: address.port };
    const server = Deno.serve({ ...where, onListen: () => {} }, (request) => answer(request));
    if ("path" in address) await makePrivate(address.path, server);
    const port = server.addr.transport === "tcp" ? server.addr.port : 0;
    const url = formatListen("path" in address ? address : { host: address.host, port });
    let ended: Promise<void> | undefined;
    return {
      url,
      answerWith: (handler) => void (answer = handler),
      shutdown: () => ended ??= server.shutdown(),
    };
  } catch (cause) {
    throw listenError(address, setting, cause);
  }
}

function notYet(): Response {
  return problemResponse(
    new PsmaError("unavailable/starting", "Cannot answer yet: this server is starting", {
      hint: "Ask again in a moment.",
    }),
  );
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

function listenError(address: ListenAddress, setting: string, cause: unknown): PsmaError {
  const what = `Cannot listen on ${formatListen(address)}`;
  if (cause instanceof Deno.errors.AddrInUse) {
    const why = "path" in address ? cause.message : "another process listens there";
    return new PsmaError("state/address-in-use", `${what}: ${why}`, {
      hint: `Stop the other process, or set ${setting} to another address.`,
      cause,
    });
  }
  const why = cause instanceof Error ? cause.message : String(cause);
  const denied = cause instanceof Deno.errors.PermissionDenied;
  return new PsmaError(denied ? "forbidden/listen" : "config/listen", `${what}: ${why}`, {
    hint: `Set ${setting} to another address, or be a user that may listen there.`,
    cause,
  });
}
