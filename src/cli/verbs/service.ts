/** `psma run` and `psma store serve`: the processes that stay. */
import { type Command, Option } from "@commander-js/extra-typings";
import { parseDuration, parseSize, PsmaError } from "../../core/mod.ts";
import type { Service, StartStore } from "../parts.ts";
import { group, type Session, type Start, untilSignal, verb } from "../verb.ts";

const LEVELS = ["debug", "info", "warn", "error"] as const;
const STORE_PATH = "/var/lib/psma-store";

const logLevel = () =>
  new Option("--log-level <level>", "how much to log").choices(LEVELS).default("info" as const);
/** The parent holds our standard input: when it dies, however it dies, we stop in order. */
const untilStdinEnds = () => new Option("--until-stdin-ends").hideHelp();

export function runVerb(start: Start): Command {
  return verb("run", "Run the agent in the foreground", [
    "psma run --config psma.yaml",
    "psma run --log-level debug",
  ])
    .addOption(logLevel())
    .addOption(untilStdinEnds())
    .action((options) =>
      start(options, async (session) => {
        const { logLevel: log_level, untilStdinEnds } = options;
        const config = session.configPath();
        const service = await session.parts.startAgent({ config, log_level });
        await stay(session, service, untilStdinEnds === true);
      })
    ) as never;
}

export function storeVerbs(start: Start): Command {
  const serve = verb("serve", "Serve volumes to other machines' agents", [
    "psma store serve --path /srv/psma-store",
    "psma store serve --path ./store --listen 127.0.0.1:9320 --nbd-listen 127.0.0.1:10809",
    "psma store serve --nbd-listen 192.0.2.7:10809 --tls-cert server.pem --tls-key server.key --tls-client-ca ca.pem",
  ])
    .option("--path <dir...>", "where the volumes' bytes live; several are filled evenly", [
      STORE_PATH,
    ])
    .option("--listen <address>", "HTTP", "127.0.0.1:9320")
    .option("--nbd-listen <address>", "NBD, where the bytes travel", "127.0.0.1:10809")
    .option("--tls-cert <file>", "NBD over TLS: this server's certificate, PEM")
    .option("--tls-key <file>", "the certificate's key, PEM")
    .option("--tls-client-ca <file>", "let only clients in whose certificate this authority signed")
    .option("--nbd-host <name>", "what clients call this machine (default: the NBD address)")
    .option("--nbd-connections <count>", "NBD clients at once (default: 256)")
    .option("--nbd-idle <duration>", "cut NBD clients that are idle for so long (default: never)")
    .option("--capacity <size>", "how much it may promise in all (default: no limit)")
    .addOption(logLevel())
    .addOption(untilStdinEnds())
    .action((options) =>
      start(options, async (session) => {
        const service = await session.parts.startStore({
          directories: options.path,
          listen: options.listen,
          nbd_listen: options.nbdListen,
          nbd_tls: tlsOf(options),
          nbd_host: options.nbdHost ?? null,
          nbd_limits: limitsOf(options),
          token_file: options.tokenFile ?? null,
          capacity_bytes: options.capacity === undefined ? null : parseSize(options.capacity),
          log_level: options.logLevel,
        });
        await stay(session, service, options.untilStdinEnds === true);
      })
    );
  return group("store", "The network data store", [serve as never]);
}

/** @throws {PsmaError} usage/connections, usage/duration */
function limitsOf(options: {
  readonly nbdConnections?: string | undefined;
  readonly nbdIdle?: string | undefined;
}): StartStore["nbd_limits"] {
  const { nbdConnections: text, nbdIdle: idle } = options;
  const connections = text === undefined ? undefined : Number(text);
  if (connections !== undefined && !(Number.isInteger(connections) && connections > 0)) {
    throw new PsmaError("usage/connections", `Cannot serve NBD: "${text}" is no number of clients`);
  }
  const idle_s = idle === undefined ? undefined : Math.ceil(parseDuration(idle) / 1000);
  return {
    ...(connections === undefined ? {} : { connections }),
    ...(idle_s === undefined ? {} : { idle_s }),
  };
}

/** @throws {PsmaError} usage/tls when one is given without the other that it needs. */
function tlsOf(options: {
  readonly tlsCert?: string | undefined;
  readonly tlsKey?: string | undefined;
  readonly tlsClientCa?: string | undefined;
}): StartStore["nbd_tls"] {
  const { tlsCert: cert_file, tlsKey: key_file, tlsClientCa: client_ca_file } = options;
  if (cert_file !== undefined && key_file !== undefined) {
    return { cert_file, key_file, ...(client_ca_file === undefined ? {} : { client_ca_file }) };
  }
  const given = [cert_file, key_file, client_ca_file].some((file) => file !== undefined);
  if (!given) return null;
  throw new PsmaError(
    "usage/tls",
    "Cannot serve NBD over TLS: --tls-cert and --tls-key go together",
  );
}

/** Serves until a signal, the end of standard input where asked for, or a failure; then stops in order. */
async function stay(session: Session, service: Service, until_stdin_ends: boolean): Promise<void> {
  using interrupted = untilSignal();
  session.answer({ ready: true, url: service.url }, () => `Ready: ${service.url}`);
  const stopped = new Promise<void>((resolve) =>
    interrupted.signal.addEventListener("abort", () => resolve(), { once: true })
  );
  const reasons = [stopped, service.failed, ...(until_stdin_ends ? [stdinEnd()] : [])];
  try {
    if (!interrupted.signal.aborted) await Promise.race(reasons);
  } finally {
    await service.stop();
  }
}

async function stdinEnd(): Promise<void> {
  const part = new Uint8Array(1024);
  while (await Deno.stdin.read(part) !== null);
}

/** Child processes' verbs: nobody types them. */
export function internalVerbs(start: Start): Command {
  const forecaster = verb("forecaster", "Serve forecasts on standard input and output", [])
    .option("--dir <dir>", "where its database is")
    .action((options) =>
      start(options, async ({ parts }) => {
        const dir = options.dir;
        const code = await parts.serveForecaster(dir === undefined ? [] : ["--dir", dir]);
        if (code !== 0) throw new PsmaError("internal/forecaster", "Cannot serve forecasts");
      })
    );
  const hostTask = verb("host-task", "Do one thing to a served device", [])
    .argument("<name>", "what to do; its argument comes on standard input")
    .action((name, options) => start(options, ({ parts }) => parts.serveHostTask(name)));
  return group("internal", "What psma starts by itself", [forecaster as never, hostTask as never]);
}
