/**
 * The main thread's end of the TLS relay. The thread is started when it is first needed; when it dies, it is
 * started again with all that it had: listeners and routes keep their addresses, and clients reconnect.
 */
import { type Clock, type Log, PsmaError, supervise } from "../../core/mod.ts";
import type { TlsSpec } from "../../codec/mod.ts";
import type { DataPlaneEvent } from "../messages.ts";
import { makePrivateDirectory } from "../private_directory.ts";
import type {
  DialTls,
  FromRelay,
  RelayCommandName,
  RelayCommands,
  ServeTls,
  ToRelay,
} from "./relay_messages.ts";
import { parseTlsUri, tlsUriBase, unixUri } from "./relay_uri.ts";

/** Distinct ways to servers; a store is one. */
const ROUTES_MAX = 256;
const REVIVE_AFTER_MS = 1000;
const SOCKET_PATH_BYTES_MAX = 107;

export interface TlsRelayOptions {
  /** Of this process alone, for sockets; made when it is missing. Without it one is made where temporary files are. */
  readonly directory?: string | undefined;
  readonly log: Log;
  readonly clock: Clock;
  readonly onEvent: (event: DataPlaneEvent) => void;
}

interface Waiting {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: PsmaError) => void;
}

export class TlsRelay {
  readonly #options: TlsRelayOptions;
  readonly #waiting = new Map<number, Waiting>();
  readonly #serves: ServeTls[] = [];
  /** By what they lead to; a promise, so that two who ask at once get one. */
  readonly #routes = new Map<string, Promise<DialTls>>();
  /** Counts up: a route that failed gives no number back, for one that came after it has the next. */
  #socketsNamed = 0;
  #directory: string | undefined;
  #worker: Worker | undefined;
  #seq = 0;
  /** Counts deaths: who revives an earlier one gives up. */
  #life = 0;
  #stopped = false;

  constructor(options: TlsRelayOptions) {
    this.#options = options;
  }

  /**
   * Listens for NBD over TLS. @returns the start of its URIs, `nbds://host:port`.
   * @param public_host what clients call this machine, where it is not what is listened on.
   * @throws {PsmaError} config/tls-file, config/listen, state/address-in-use
   */
  async serve(serve: ServeTls, public_host = serve.listen.host): Promise<string> {
    const { port } = await this.#call("serve", serve);
    const listen = { ...serve.listen, port };
    this.#serves.push({ ...serve, listen });
    return tlsUriBase(public_host, port);
  }

  /**
   * The URI on a Unix socket that leads to an export over TLS; nothing is reached yet.
   * @param patient files that cannot be used now are waited for, as a server that is away is.
   * @throws {PsmaError} usage/nbd-uri, config/tls-file, unavailable/routes, state/private-directory
   */
  async route(uri: string, tls: TlsSpec, patient = false): Promise<string> {
    const { address, host, exportPath } = parseTlsUri(uri);
    const { server_name = host, ...files } = tls;
    const key = JSON.stringify([address, server_name, files]);
    let route = this.#routes.get(key);
    if (!route) {
      if (this.#routes.size >= ROUTES_MAX) {
        throw new PsmaError(
          "unavailable/routes",
          `Cannot reach ${uri}: too many servers are in use`,
        );
      }
      const path = this.#socketPath(this.#socketsNamed++);
      route = this.#open({ path, address, server_name, files, patient });
      this.#routes.set(key, route);
      route.catch(() => this.#routes.delete(key));
    }
    return unixUri(exportPath, (await route).path);
  }

  /** @param uri as `route` gave it. @returns why the latest connection through it failed; null when it did not. */
  async fault(uri: string): Promise<string | null> {
    const path = new URLSearchParams(uri.split("?", 2)[1]).get("socket") ?? "";
    return await this.#call("fault", { path });
  }

  /** Cuts all connections. Idempotent. */
  stop(): void {
    this.#stopped = true;
    this.#worker?.terminate();
    this.#drop("it has stopped");
    if (this.#directory !== undefined) removeAll(this.#directory);
    this.#directory = undefined;
  }

  async #open(dial: DialTls): Promise<DialTls> {
    await this.#call("dial", dial);
    Deno.chmodSync(dial.path, 0o600);
    return dial;
  }

  #call<Name extends RelayCommandName>(
    name: Name,
    argument: RelayCommands[Name]["argument"],
  ): Promise<RelayCommands[Name]["answer"]> {
    if (this.#stopped) return Promise.reject(gone("it has stopped"));
    const worker = this.#worker ??= this.#start();
    const seq = ++this.#seq;
    const answer = new Promise((resolve, reject) => this.#waiting.set(seq, { resolve, reject }));
    const message: ToRelay = { seq, name, argument };
    worker.postMessage(message);
    return answer as Promise<RelayCommands[Name]["answer"]>;
  }

  #start(): Worker {
    const worker = new Worker(workerUrl(), { type: "module", name: "tls-relay" });
    worker.onmessage = (message: MessageEvent<FromRelay>) => this.#receive(message.data);
    worker.onerror = (error) => {
      error.preventDefault();
      this.#died(error.message);
    };
    return worker;
  }

  #receive(message: FromRelay): void {
    if (message.kind === "event") return this.#options.onEvent(message.event);
    const waiting = this.#waiting.get(message.seq);
    this.#waiting.delete(message.seq);
    if (message.outcome.ok) waiting?.resolve(message.outcome.value);
    else waiting?.reject(PsmaError.fromRecord(message.outcome.error));
  }

  #died(reason: string): void {
    const { log } = this.#options;
    log.error("the TLS relay died", { reason });
    this.#worker?.terminate();
    this.#worker = undefined;
    this.#drop(reason);
    supervise("reviving the TLS relay", this.#revive(++this.#life), log);
  }

  /**
   * Until all that was there is there again: a port may be busy for a moment after its listener died. All at
   * once: what cannot come back now, because its certificate has gone, must not keep the others away.
   */
  async #revive(life: number): Promise<void> {
    const { clock, log } = this.#options;
    const repeat = async (attempt: () => Promise<unknown>) => {
      while (!this.#stopped && life === this.#life) {
        if (await attempt().then(() => true, () => false)) return;
        await clock.sleep(REVIVE_AFTER_MS);
      }
    };
    await clock.sleep(REVIVE_AFTER_MS);
    const serves = this.#serves.map((serve) => repeat(() => this.#call("serve", serve)));
    const routes = [...this.#routes.values()].map(async (route) => {
      const dial = await route.catch(() => undefined);
      if (dial === undefined) return;
      await repeat(() => {
        removeAll(dial.path);
        return this.#open({ ...dial, patient: true });
      });
    });
    await Promise.all([...serves, ...routes]);
    if (life === this.#life) log.info("the TLS relay is back");
  }

  #drop(reason: string): void {
    for (const waiting of this.#waiting.values()) waiting.reject(gone(reason));
    this.#waiting.clear();
  }

  /** A directory that only we may enter, because who reaches the sockets in it reaches servers with our key. */
  #socketPath(index: number): string {
    this.#directory ??= this.#options.directory === undefined
      ? Deno.makeTempDirSync({ prefix: "psma-tls-" })
      : makePrivateDirectory(this.#options.directory);
    const path = `${this.#directory}/${index}`;
    if (new TextEncoder().encode(path).length <= SOCKET_PATH_BYTES_MAX) return path;
    throw new PsmaError("config/value", `Cannot listen on ${path}: the path is too long`, {
      hint: "Choose a shorter directory.",
    });
  }
}

function removeAll(path: string): void {
  try {
    Deno.removeSync(path, { recursive: true });
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

function gone(reason: string): PsmaError {
  return new PsmaError("unavailable/tls-relay", `Cannot use TLS: ${reason}`);
}

/** The worker beside this module, from sources and from a bundle alike. */
function workerUrl(): URL {
  const name = import.meta.url.endsWith(".ts") ? "./relay.ts" : "./tls_relay.js";
  return new URL(name, import.meta.url);
}
