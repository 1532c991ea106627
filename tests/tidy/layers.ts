/** The rooms of `src/`, ground floor first, and what each may import: docs/ARCHITECTURE.md as data. */

/** A room may import these rooms, each through its `mod.ts`. */
export const LAYERS: Readonly<Record<string, readonly string[]>> = {
  core: [],
  codec: ["core"],
  sys: ["core", "codec"],
  backend: ["core", "codec", "sys"],
  volume: ["core", "codec", "backend"],
  mirror: ["core", "backend", "volume"],
  frontend: ["core", "codec", "sys", "volume"],
  dataplane: ["core", "codec", "sys", "backend", "volume", "mirror", "frontend"],
  monitor: ["core", "codec", "sys"],
  forecast: ["core"],
  datastore: ["core", "dataplane"],
  agent: ["core", "monitor", "forecast", "datastore", "dataplane"],
  api: ["core", "agent"],
  cli: ["core", "api"],
};

/**
 * Doors other than a room's `mod.ts`, and `mod.ts` where only types may pass: the command line
 * talks to the agent over HTTP and must not load the server.
 */
export const DOORS: readonly {
  readonly from: string;
  readonly to: string;
  readonly file: string;
  readonly types_only: boolean;
}[] = [
  { from: "cli", to: "api", file: "client.ts", types_only: false },
  { from: "cli", to: "api", file: "mod.ts", types_only: true },
];

/** npm package → the rooms that may import it. */
export const PACKAGES: Readonly<Record<string, readonly string[]>> = {
  "@commander-js/extra-typings": ["cli"],
  "@duckdb/duckdb-wasm": ["forecast"],
  "@hono/zod-openapi": ["api", "datastore"],
  commander: ["cli"],
  "csv-parse": ["forecast"],
  "fast-check": [],
  "hash-wasm": ["mirror"],
  hono: ["api", "datastore"],
  "simple-statistics": ["forecast"],
  yaml: ["agent"],
  zod: ["api", "datastore"],
};

/** Files that run in a thread of their own, so that no import leads to them. */
export const WORKER_ENTRIES: readonly string[] = [
  "src/dataplane/worker.ts",
  "src/dataplane/tls/relay.ts",
];

/** One import, by paths relative to the checkout; `to` is a package or `node:` name when not ours. */
export interface Import {
  readonly from: string;
  readonly to: string;
  readonly types_only: boolean;
}

/** The room of a path below `src/`; undefined elsewhere. */
export function roomOf(path: string): string | undefined {
  return /^src\/([^/]+)\//.exec(path)?.[1];
}

/** @returns why this import is not allowed; undefined when it is. */
export function faultOf({ from, to, types_only }: Import): string | undefined {
  const room = roomOf(from);
  const target = roomOf(to);
  if (target === undefined) return room === undefined ? undefined : packageFault(room, from, to);
  if (room === target) return undefined;
  const file = to.slice(`src/${target}/`.length);
  if (room === undefined) {
    const only = from === "main.ts" ? undefined : "only main.ts composes rooms";
    return file === "mod.ts" ? only : `${from} imports ${to}: only a room's mod.ts is its door`;
  }
  const allowed = LAYERS[room];
  if (allowed === undefined) return `${from}: the room ${room} is not in the table`;
  if (!allowed.includes(target)) return `${from} imports ${to}: ${room} may not import ${target}`;
  const door = DOORS.find((one) => one.from === room && one.to === target && one.file === file);
  if (door !== undefined) {
    return door.types_only && !types_only ? `${from} imports ${to}: types only` : undefined;
  }
  return file === "mod.ts" ? undefined : `${from} imports ${to}: only mod.ts is its door`;
}

function packageFault(room: string, from: string, to: string): string | undefined {
  if (to.startsWith("node:")) return undefined;
  if (/^(npm|jsr|https?):/.test(to)) return `${from} imports ${to}: not through the import map`;
  const name = to.split("/").slice(0, to.startsWith("@") ? 2 : 1).join("/");
  return PACKAGES[name]?.includes(room)
    ? undefined
    : `${from} imports ${to}: the room ${room} may not use ${name}`;
}

/** @returns each cycle found, as the files along it. One file can close several. */
export function cyclesOf(imports: readonly Import[]): string[][] {
  const edges = new Map<string, string[]>();
  for (const { from, to } of imports) edges.set(from, [...edges.get(from) ?? [], to]);
  const done = new Set<string>();
  const path: string[] = [];
  const cycles: string[][] = [];
  const visit = (file: string) => {
    const at = path.indexOf(file);
    if (at >= 0) {
      cycles.push([...path.slice(at), file]);
      return;
    }
    if (done.has(file)) return;
    path.push(file);
    for (const next of edges.get(file) ?? []) visit(next);
    path.pop();
    done.add(file);
  };
  for (const file of edges.keys()) visit(file);
  return cycles;
}

/** @returns all files that `entries` lead to, themselves included. */
export function reachableFrom(entries: readonly string[], imports: readonly Import[]): Set<string> {
  const reached = new Set(entries);
  for (const file of reached) {
    for (const { from, to } of imports) if (from === file) reached.add(to);
  }
  return reached;
}
