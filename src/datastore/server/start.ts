/**
 * Starts a store server: addresses taken, directories locked, all volumes served again, then HTTP answered.
 * Where an address is another's, nothing has been made.
 *
 * Faults: a data plane that dies takes the server with it (`died` rejects), because volumes that cannot be
 * read must not look served; a start brings everything back.
 */
import { resolve } from "node:path";
import {
  type Clock,
  ensureToken,
  type HttpServer,
  type ListenAddress,
  listenHttp,
  type Log,
  parseListen,
  PsmaError,
  type Rng,
  systemClock,
  systemRng,
} from "../../core/mod.ts";
import {
  DataPlane,
  type DataPlaneEvent,
  type NbdLimits,
  type NbdTls,
} from "../../dataplane/mod.ts";
import { VolumeFolders } from "../volume_folders.ts";
import { createApp } from "./app.ts";
import { Catalogue } from "./catalogue.ts";
import { listenNbd, readNbdDoor } from "./nbd_door.ts";

/** A server that was just killed may take a moment to end. */
const RELEASED_WITHIN_MS = 2000;
const LISTEN_EVERY_MS = 100;
const TOKEN_NAME = ".psma-token";

export interface StoreOptions {
  /** Volumes go to the one with the most free space. */
  readonly directories: readonly string[];
  /** HTTP: `127.0.0.1:9320`, or `unix:/path`. Port 0 takes any. */
  readonly listen: string;
  /** Bytes: `127.0.0.1:10809`, or `unix:/path`; with TLS and a client authority also beyond loopback. */
  readonly nbd: string;
  readonly nbd_tls?: NbdTls;
  /** What clients call this machine in NBD URIs; default: the address that is listened on. */
  readonly nbd_host?: string;
  readonly nbd_limits?: NbdLimits;
  /** Default: `.psma-token` in the first directory, made where it is missing. */
  readonly token_file?: string;
  /** The limit of what is promised in all; without it sizes are thin and only disks are full. */
  readonly capacity_bytes?: number;
  readonly log: Log;
  readonly clock?: Clock;
  readonly rng?: Rng;
}

export interface RunningStore {
  /** For the configuration of a client: `http://127.0.0.1:9320`, or `unix:/path`. */
  readonly url: string;
  /** Where NBD clients connect; each volume's own URI is in its answer. */
  readonly nbd_address: string;
  readonly token_file: string;
  /** Rejects when the data plane dies; never resolves. */
  readonly died: Promise<never>;
  /** Lets requests under way end, flushes and closes all volumes, gives the lock back. Idempotent. */
  stop(): Promise<void>;
}

/** @throws {PsmaError} config/listen, state/address-in-use, config/token-file, config/tls-file, config/store, state/locked, sys/..., io/... */
export async function startStore(options: StoreOptions): Promise<RunningStore> {
  const { directories, log, clock = systemClock, rng = systemRng } = options;
  const http = parseListen(options.listen);
  const reach = readNbdDoor(options.nbd, options.nbd_tls, options.nbd_host);
  const first = directories[0];
  if (first === undefined) {
    throw new PsmaError("config/store", "Cannot serve a store: it has no directory");
  }
  await using cleanup = new AsyncDisposableStack();
  await makeSocketPlaces(directories, [http, reach.listen]);
  const server = await listenReleased(http, clock);
  cleanup.defer(() => server.shutdown());
  // Disposed of last: nobody else may have a directory that the data plane still writes to.
  const locks = cleanup.use(new AsyncDisposableStack());
  const plane = await DataPlane.start({ log, onEvent: (event) => logEvent(log, event) });
  cleanup.defer(() => plane.stop().catch(() => {}));
  let dead: string | undefined;
  plane.died.catch((error: PsmaError) => dead = error.message);
  const door = await listenNbd(plane, reach, first, options.nbd_limits ?? {});
  const folders: VolumeFolders[] = [];
  for (const directory of directories) {
    const one = new VolumeFolders(await realDirectory(directory), { log, clock, rng });
    locks.use(await one.lock(RELEASED_WITHIN_MS));
    await one.sweep();
    folders.push(one);
  }
  const token_file = options.token_file ?? `${first}/${TOKEN_NAME}`;
  const token = ensureToken(token_file, rng);
  await door.open();
  const { capacity_bytes } = options;
  const catalogue = await Catalogue.open({ folders, plane, capacity_bytes, log, clock, rng });
  const app = createApp({ catalogue, token, notReady: () => dead, log });
  server.answerWith(app.fetch);
  // Stopped first, so that nobody asks for what is being closed.
  cleanup.defer(() => server.shutdown());
  const running = cleanup.move();
  const { url } = server;
  log.info("store ready", { url, nbd: door.address, volumes: (await catalogue.list()).length });
  return {
    url,
    nbd_address: door.address,
    token_file,
    died: plane.died,
    stop: () => running.disposeAsync(),
  };
}

/**
 * A socket inside one of the store's directories needs that directory first. Nobody else can listen in one
 * that is missing, so a server that finds its address taken has made none.
 */
async function makeSocketPlaces(
  directories: readonly string[],
  addresses: readonly ListenAddress[],
): Promise<void> {
  for (const directory of directories) {
    const inside = `${resolve(directory)}/`;
    if (addresses.some((one) => "path" in one && one.path.startsWith(inside))) {
      await realDirectory(directory);
    }
  }
}

/** Listens for HTTP, once a server that was just killed has let go. */
async function listenReleased(address: ListenAddress, clock: Clock): Promise<HttpServer> {
  const until_ms = clock.monotonicMs() + RELEASED_WITHIN_MS;
  while (true) {
    try {
      return await listenHttp(address, "--listen");
    } catch (error) {
      const taken = error instanceof PsmaError && error.code === "state/address-in-use";
      if (!taken || clock.monotonicMs() >= until_ms) throw error;
      await clock.sleep(LISTEN_EVERY_MS);
    }
  }
}

function logEvent(log: Log, { type, severity, message, volume }: DataPlaneEvent) {
  const fields = { type, volume };
  if (severity === "error") log.error(message, fields);
  else if (severity === "warning") log.warn(message, fields);
  else log.info(message, fields);
}

/** Absolute, and the same for all names of one directory: manifests keep it. */
async function realDirectory(path: string): Promise<string> {
  try {
    await Deno.mkdir(path, { recursive: true, mode: 0o700 });
    return await Deno.realPath(path);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new PsmaError("config/store", `Cannot serve ${path}: ${reason}`, { cause });
  }
}
