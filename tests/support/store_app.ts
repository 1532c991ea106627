/** A store without sockets for HTTP: a real data plane, real files, and the app to send requests to. */
import { createLog, seededRng, systemClock } from "../../src/core/mod.ts";
import { DataPlane } from "../../src/dataplane/mod.ts";
import { createApp, type StoreApp } from "../../src/datastore/server/app.ts";
import { Catalogue } from "../../src/datastore/server/catalogue.ts";
import { VolumeFolders } from "../../src/datastore/volume_folders.ts";
import { type TempDir, tempDir } from "./temp.ts";

export const TOKEN = "0123456789abcdef0123456789abcdef";

export interface Answer {
  readonly status: number;
  readonly type: string;
  // deno-lint-ignore no-explicit-any -- tests look into answers of every shape
  readonly body: any;
}

export interface Ask {
  readonly body?: unknown;
  /** Sent as it is, instead of JSON of `body`. */
  readonly raw?: string;
  readonly key?: string;
  /** Null: no Authorization header. */
  readonly authorization?: string | null;
  readonly content_type?: string;
  /** Default: as long as the body is; null: no Content-Length header. */
  readonly content_length?: number | null;
}

export interface TestStore extends AsyncDisposable {
  readonly app: StoreApp;
  readonly plane: DataPlane;
  readonly temp: TempDir;
  readonly logged: string[];
  ask(method: string, path: string, ask?: Ask): Promise<Answer>;
}

export async function openTestStore(
  options: { capacity_bytes?: number; directory?: string } = {},
): Promise<TestStore> {
  await using starting = new AsyncDisposableStack();
  const temp = starting.use(tempDir());
  const logged: string[] = [];
  const log = createLog({ write: (line) => logged.push(line) });
  const parts = { log, clock: systemClock, rng: seededRng(1) };
  const plane = await DataPlane.start({ log });
  starting.defer(() => plane.stop());
  await plane.command("serveNbd", { listen: { path: temp.file("nbd.sock") }, fenced: true });
  const folders = new VolumeFolders(options.directory ?? temp.file("volumes"), parts);
  starting.use(await folders.lock(0));
  const { capacity_bytes } = options;
  const catalogue = await Catalogue.open({ folders: [folders], plane, capacity_bytes, ...parts });
  const app = createApp({ catalogue, token: TOKEN, notReady: () => undefined, log });
  const running = starting.move();
  return {
    app,
    plane,
    temp,
    logged,
    ask: (method, path, ask = {}) => send(app, method, path, ask),
    [Symbol.asyncDispose]: () => running.disposeAsync(),
  };
}

async function send(app: StoreApp, method: string, path: string, ask: Ask): Promise<Answer> {
  const { body, raw, key, authorization = `Bearer ${TOKEN}`, content_type } = ask;
  const headers = new Headers();
  if (authorization !== null) headers.set("authorization", authorization);
  if (key !== undefined) headers.set("idempotency-key", key);
  const text = raw ?? (body === undefined ? undefined : JSON.stringify(body));
  if (text !== undefined) headers.set("content-type", content_type ?? "application/json");
  // A server's requests always say it where there may be a body; the ones made here do not by themselves.
  const { content_length = new TextEncoder().encode(text).length } = ask;
  if (content_length !== null) headers.set("content-length", String(content_length));
  const request = { method, headers, ...(text === undefined ? {} : { body: text }) };
  const response = await app.request(path, request);
  const type = response.headers.get("content-type") ?? "";
  const answer = await response.text();
  const parsed = type.includes("json") ? JSON.parse(answer) : answer;
  return { status: response.status, type, body: parsed };
}

export const MIB: number = 1 << 20;

export function mirrorBody(more: Record<string, unknown> = {}): Record<string, unknown> {
  return {
    source: { agent: "node-1", volume: "data", size_bytes: 4 * MIB, used_bytes: MIB },
    predicted_need: { bytes: 6 * MIB, level: 0.95, at: "2026-01-02T03:04:05Z" },
    size_bytes: 8 * MIB,
    deadline: "2026-01-02T03:04:05Z",
    epoch: 3,
    ...more,
  };
}
