/**
 * The configuration: psma.yaml in, plain records out. Strict: an unknown key, a value that this version
 * cannot serve and a name that leads nowhere are errors with line and column; nothing is silently ignored.
 */
import { isMap, LineCounter, parseDocument } from "yaml";
import { checkName, formatSize, isLoopback, type ListenAddress, PsmaError } from "../core/mod.ts";
import { type NbdConfig, readNbd } from "./config_nbd.ts";
import { type ConfigProblem, problemsError } from "./config_problems.ts";
import { Section } from "./config_section.ts";
import { readVolume, type VolumeConfig } from "./config_volume.ts";

export type StoreConfig =
  | { readonly type: "embedded"; readonly path: string }
  | {
    readonly type: "psma";
    readonly url: string;
    readonly token_file?: string;
    /** Of authorities that sign the store's certificates, for HTTP and for NBD. */
    readonly ca_file?: string;
    /** What we show to the store's NBD server. */
    readonly cert_file?: string;
    readonly key_file?: string;
    /** What its certificate is for, when it is not the host of its URIs. */
    readonly server_name?: string;
  };

export interface AgentConfig {
  readonly api: { readonly listen: ListenAddress; readonly token_file: string };
  /** Null: NBD clients use the Unix socket in the state directory. */
  readonly nbd: NbdConfig | null;
  readonly state_dir: string;
  readonly sampling: { readonly interval_ms: number };
  readonly forecast: {
    readonly mode: "local";
    readonly horizon_ms: number;
    readonly level: number;
    /** How often each volume is forecast and planned. */
    readonly interval_ms: number;
  };
  /** In the order of the file. */
  readonly stores: Readonly<Record<string, StoreConfig>>;
  readonly volumes: Readonly<Record<string, VolumeConfig>>;
}

const DEFAULT_STATE_DIR = "/var/lib/psma";

export interface ParsedConfig {
  /** Absent when there is a problem. */
  readonly config?: AgentConfig;
  /** By line, then column. */
  readonly problems: readonly ConfigProblem[];
}

/** Finds everything that is wrong with the configuration `text`: `psma config check`. */
export function checkConfig(text: string, directory = "/etc/psma"): readonly ConfigProblem[] {
  return parseConfig(text, directory).problems;
}

/**
 * Reads and checks a configuration file.
 * @throws {PsmaError} config/missing-file, or the first problem's code with all problems in the hint.
 */
export function loadConfig(path: string): AgentConfig {
  const { config, problems } = parseConfig(readConfigFile(path), folderOf(path));
  if (config === undefined) throw problemsError(problems, path);
  return config;
}

/** The text of a configuration file. @throws {PsmaError} config/missing-file, config/unreadable */
export function readConfigFile(path: string): string {
  try {
    return Deno.readTextFileSync(path);
  } catch (cause) {
    const missing = cause instanceof Deno.errors.NotFound;
    throw new PsmaError(
      missing ? "config/missing-file" : "config/unreadable",
      `Cannot read configuration ${path}: ${
        missing ? "there is no such file" : whyUnreadable(path, cause)
      }`,
      { cause, hint: "Name it with --config; docs/examples/psma.yaml shows every key." },
    );
  }
}

function whyUnreadable(path: string, cause: unknown): string {
  if (cause instanceof Deno.errors.IsADirectory || isDirectory(path)) return "it is a directory";
  if (cause instanceof Deno.errors.PermissionDenied) return "this user may not read it";
  return cause instanceof Error ? cause.message : String(cause);
}

function isDirectory(path: string): boolean {
  try {
    return Deno.statSync(path).isDirectory;
  } catch {
    return false;
  }
}

/** @param directory relative paths in the text begin there. */
export function parseConfig(text: string, directory: string): ParsedConfig {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  const problems: ConfigProblem[] = document.errors.map((error) => {
    const { line, col } = lines.linePos(error.pos[0]);
    const message = `Cannot read the configuration: ${error.message}`;
    return { code: "config/syntax", line, column: col, path: "", message };
  });
  if (problems.length > 0) return { problems };
  const { contents } = document;
  const root = new Section(
    "",
    { lines, problems },
    isMap(contents) ? contents : undefined,
    contents?.range?.[0] ?? 0,
  );
  if (contents !== null && !isMap(contents)) {
    root.report("", "config/value", "it is not a mapping of keys to values");
  }
  const config = readRoot(root, directory);
  problems.sort((a, b) => a.line - b.line || a.column - b.column);
  return problems.length > 0 ? { problems } : { config, problems };
}

function readRoot(root: Section, directory: string): AgentConfig {
  const absolute = (path: string) => absolutePath(path, directory);
  const stateDir = absolute(root.text("state_dir", DEFAULT_STATE_DIR));
  const api = root.section("api");
  const sampling = root.section("sampling");
  const forecast = root.section("forecast");
  const stores = readStores(root.section("stores"), stateDir, absolute);
  const level = forecast.share("level", { fallback: 0.95, above: 0.5, atMost: 0.999 });
  const horizonMs = forecast.duration("horizon", { fallback: 86_400_000, minimum: 1_000 });
  const intervalMs = sampling.duration("interval", { fallback: 5_000, minimum: 200 });
  const config: AgentConfig = {
    api: {
      listen: readListen(api, absolute),
      token_file: absolute(api.text("token_file", `${stateDir}/api.token`)),
    },
    nbd: readNbd(root.section("nbd"), absolute),
    state_dir: stateDir,
    sampling: { interval_ms: intervalMs },
    forecast: {
      mode: forecast.choice("mode", {
        values: ["local"],
        later: ["remote", "auto"],
        fallback: "local",
      }),
      horizon_ms: horizonMs,
      level,
      interval_ms: forecast.duration("interval", {
        fallback: 12 * intervalMs,
        minimum: intervalMs,
      }),
    },
    stores,
    volumes: readVolumes(root.section("volumes"), stores, level),
  };
  for (const section of [api, sampling, forecast, root]) section.end();
  return config;
}

function readListen(api: Section, absolute: (path: string) => string): ListenAddress {
  const text = api.text("listen", "127.0.0.1:9310");
  if (text.startsWith("unix:") || text.startsWith("/")) {
    return { path: absolute(text.replace(/^unix:(\/\/)?/, "")) };
  }
  const match = /^(?:\[([0-9a-f:]+)\]|([^:[\]]+)):(\d{1,5})$/i.exec(text);
  const host = match?.[1] ?? match?.[2] ?? "";
  const port = Number(match?.[3]);
  if (!match || port > 65_535) {
    api.refuse(
      "listen",
      `"${text}" is not an address`,
      "Write 127.0.0.1:9310 or unix:/run/psma.sock.",
    );
  } else if (!isLoopback(host)) {
    api.report("listen", "config/unsupported", `"${host}" is reachable from other machines`, {
      hint:
        "Nothing listens beyond loopback without TLS; use 127.0.0.1 and a proxy or an SSH tunnel.",
    });
  }
  return { host, port };
}

function readStores(
  section: Section,
  stateDir: string,
  absolute: (path: string) => string,
): Record<string, StoreConfig> {
  const stores: Record<string, StoreConfig> = {};
  for (const [name, store] of section.sections()) {
    if (validName(section, name, "store")) stores[name] = readStore(store, absolute);
  }
  if (!section.present) stores["local"] = { type: "embedded", path: `${stateDir}/volumes` };
  return stores;
}

function readStore(store: Section, absolute: (path: string) => string): StoreConfig {
  const type = store.choice("type", {
    values: ["embedded", "psma"],
    later: ["nbd", "rbd", "exec"],
  });
  // A store of another type was refused; its keys are not to be judged by the wrong list.
  if (store.has("type") && store.text("type") !== type) return { type: "embedded", path: "" };
  const config: StoreConfig = type === "embedded"
    ? { type, path: absolute(store.text("path")) }
    : readNetworkStore(store, absolute);
  store.end();
  return config;
}

function readNetworkStore(store: Section, absolute: (path: string) => string): StoreConfig {
  const url = store.text("url");
  if (store.has("url") && !/^https?:\/\/[^/]+/.test(String(url))) {
    store.refuse("url", `"${url}" is not an http or https address`);
  }
  const file = (key: "token_file" | "ca_file" | "cert_file" | "key_file") =>
    store.has(key) ? { [key]: absolute(store.text(key)) } : {};
  if (store.has("cert_file") !== store.has("key_file")) {
    store.report(
      store.has("cert_file") ? "key_file" : "cert_file",
      "config/missing",
      "cert_file and key_file go together",
    );
  }
  return {
    type: "psma",
    url: String(url).replace(/\/+$/, ""),
    ...file("token_file"),
    ...file("ca_file"),
    ...file("cert_file"),
    ...file("key_file"),
    ...(store.has("server_name") ? { server_name: store.text("server_name") } : {}),
  };
}

function readVolumes(
  section: Section,
  stores: Readonly<Record<string, StoreConfig>>,
  level: number,
): Record<string, VolumeConfig> {
  const volumes: Record<string, VolumeConfig> = {};
  const mounts = new Map<string, string>();
  for (const [name, volume] of section.sections()) {
    if (!validName(section, name, "volume")) continue;
    const config = readVolume(volume, name, Object.keys(stores), level);
    volumes[name] = config;
    const mount = config.filesystem?.mount;
    if (mount === undefined) continue;
    const other = mounts.get(mount);
    if (other !== undefined) {
      volume.section("filesystem").refuse("mount", `${mount} is the mount point of ${other} too`);
    }
    mounts.set(mount, name);
  }
  return volumes;
}

function validName(section: Section, name: string, what: string): boolean {
  try {
    checkName(name, what);
    return true;
  } catch (error) {
    const { message, hint } = error as PsmaError;
    section.refuse(name, message.replace(/^[^:]*: /, ""), hint);
    return false;
  }
}

/** The configuration as `psma config show` prints it: every default filled in, sizes for people beside bytes. */
export function describeConfig(config: AgentConfig): Record<string, unknown> {
  const volumes = Object.values(config.volumes).map((volume) => [volume.name, {
    ...volume,
    size: formatSize(volume.size_bytes),
    max_size: formatSize(volume.max_size_bytes),
  }]);
  return { ...config, volumes: Object.fromEntries(volumes) };
}

/** A volume's own directory: manifest, change maps and the served file. */
export function directoryOf(config: AgentConfig, volume: string): string {
  return `${config.state_dir}/volume-state/${volume}`;
}

function absolutePath(path: string, directory: string): string {
  return path === undefined || path.startsWith("/") ? path : `${directory}/${path}`;
}

function folderOf(path: string): string {
  const absolute = path.startsWith("/") ? path : `${Deno.cwd()}/${path}`;
  return absolute.slice(0, absolute.lastIndexOf("/")) || "/";
}
