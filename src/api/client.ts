/**
 * The agent's HTTP API for programs of ours: typed, over TCP or a Unix socket. Imports no server.
 *
 * Faults: nothing listens, or it went away: `unavailable/agent`. A late answer: `timeout/agent`.
 * What the agent refused arrives as the very PsmaError that it threw.
 */
import {
  type Clock,
  formatListen,
  fromProblem,
  parseListen,
  PsmaError,
  systemClock,
} from "../core/mod.ts";
import type {
  AgentEvent,
  AgentStatus,
  CreateVolume,
  Forecast,
  MirrorStatus,
  Operation,
  Plan,
  ScaleOrder,
  VerifyOptions,
  VerifyResult,
  VerifyStatus,
  VolumeView,
  Wish,
} from "../agent/mod.ts";
import { decodeEvents } from "./event_stream.ts";

export { readToken } from "../core/mod.ts";
export type {
  AgentEvent,
  AgentStatus,
  CreateVolume,
  Forecast,
  MirrorStatus,
  Operation,
  Plan,
  VerifyResult,
  VerifyStatus,
  VolumeView,
};

export interface ClientOptions {
  /** `127.0.0.1:9310`, `http://…` or `unix:/path`. */
  readonly url: string;
  /** Asked for the token only when a request needs one. */
  readonly token: () => string;
  /** Milliseconds for one answer; default 30 s. */
  readonly within_ms?: number;
  readonly clock?: Clock;
}

export interface History {
  readonly metric: string;
  readonly step_ms: number;
  readonly points: readonly { readonly at_ms: number; readonly value: number }[];
}

const WITHIN_MS = 30_000;
const POLL_MS_MIN = 50;
const POLL_MS_MAX = 1000;

export class AgentClient implements Disposable {
  readonly #options: ClientOptions;
  readonly #base: string;
  readonly #http: Deno.HttpClient | undefined;
  readonly #clock: Clock;

  constructor(options: ClientOptions) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    const address = parseListen(options.url);
    this.#base = "path" in address ? "http://localhost" : formatListen(address);
    this.#http = "path" in address
      ? Deno.createHttpClient({ proxy: { transport: "unix", path: address.path } })
      : undefined;
  }

  [Symbol.dispose](): void {
    this.#http?.close();
  }

  status(): Promise<AgentStatus> {
    return this.#get("/v1/status");
  }

  async volumes(): Promise<readonly VolumeView[]> {
    return (await this.#get<{ volumes: VolumeView[] }>("/v1/volumes")).volumes;
  }

  volume(name: string): Promise<VolumeView> {
    return this.#get(at(name));
  }

  createVolume(spec: CreateVolume): Promise<VolumeView> {
    return this.#post("/v1/volumes", spec);
  }

  async deleteVolume(name: string): Promise<void> {
    await this.#send("DELETE", at(name));
  }

  attach(name: string): Promise<VolumeView> {
    return this.#post(at(name, "attach"));
  }

  /** @param options.force cuts off who uses it. @throws {PsmaError} state/busy when somebody does. */
  detach(name: string, { force = false }: { force?: boolean } = {}): Promise<VolumeView> {
    return this.#post(at(name, "detach"), force ? { force } : undefined);
  }

  /** @throws {PsmaError} state/not-fenced, state/attached, fenced/claimed */
  claim(name: string): Promise<VolumeView> {
    return this.#post(at(name, "claim"));
  }

  forecast(
    name: string,
    query: { metric?: string; horizon?: string; levels?: string },
  ): Promise<Forecast> {
    return this.#get(at(name, "forecast"), query);
  }

  plan(name: string): Promise<Plan> {
    return this.#get(at(name, "plan"));
  }

  history(
    name: string,
    query: { metric?: string; from?: string; to?: string; step?: string },
  ): Promise<History> {
    return this.#get(at(name, "history"), query);
  }

  /** @throws {PsmaError} not-found/mirror when there is none. */
  mirror(name: string): Promise<MirrorStatus> {
    return this.#get(at(name, "mirror"));
  }

  startMirror(name: string, order: ScaleOrder): Promise<Operation> {
    return this.#post(at(name, "mirror/start"), order);
  }

  pauseMirror(name: string): Promise<MirrorStatus> {
    return this.#post(at(name, "mirror/pause"));
  }

  resumeMirror(name: string): Promise<MirrorStatus> {
    return this.#post(at(name, "mirror/resume"));
  }

  async cancelMirror(name: string): Promise<void> {
    await this.#post(at(name, "mirror/cancel"));
  }

  verifyMirror(name: string, options: VerifyOptions): Promise<Operation> {
    return this.#post(at(name, "mirror/verify"), options);
  }

  stopVerify(name: string): Promise<VerifyStatus> {
    return this.#post(at(name, "mirror/verify/stop"));
  }

  scale(name: string, order: ScaleOrder): Promise<Operation> {
    return this.#post(at(name, "scale"), order);
  }

  switchVolume(name: string, order: Wish = {}): Promise<Operation> {
    return this.#post(at(name, "switch"), order);
  }

  /** @throws {PsmaError} state/would-lose unless what was written since the backup was frozen may be lost. */
  rollback(
    name: string,
    { discard_changes = false }: { discard_changes?: boolean } = {},
  ): Promise<Operation> {
    return this.#post(at(name, "rollback"), discard_changes ? { discard_changes } : undefined);
  }

  retire(name: string): Promise<Operation> {
    return this.#post(at(name, "retire"));
  }

  operation(id: string): Promise<Operation> {
    return this.#get(`/v1/operations/${encodeURIComponent(id)}`);
  }

  async events(
    query: { after?: number; limit?: number; volume?: string },
  ): Promise<readonly AgentEvent[]> {
    return (await this.#get<{ events: AgentEvent[] }>("/v1/events", query)).events;
  }

  /** Live events after `after`, until the signal aborts or the agent goes away. */
  async *follow(after: number, signal: AbortSignal): AsyncGenerator<AgentEvent> {
    const response = await this.#fetch("/v1/events", {
      headers: { accept: "text/event-stream", "last-event-id": String(after) },
      signal,
    });
    if (response.body !== null) yield* decodeEvents(response.body);
  }

  /**
   * Waits for long work, asking again ever more rarely.
   * @param onProgress called after each look that found it still running.
   * @throws {PsmaError} what the operation failed with.
   */
  async finished(
    begun: Operation,
    options: { signal?: AbortSignal; onProgress?: () => void | Promise<void> } = {},
  ): Promise<Operation> {
    let wait_ms = POLL_MS_MIN;
    for (let operation = begun;; operation = await this.operation(begun.id)) {
      if (operation.state === "done") return operation;
      if (operation.state === "failed") throw operationFailure(operation);
      await options.onProgress?.();
      await this.#clock.sleep(wait_ms, options.signal);
      wait_ms = Math.min(POLL_MS_MAX, wait_ms * 1.5);
    }
  }

  #get<T>(path: string, query: Readonly<Record<string, string | number>> = {}): Promise<T> {
    const pairs = Object.entries(query).map(([key, value]) => [key, String(value)]);
    const search = pairs.length === 0 ? "" : `?${new URLSearchParams(pairs)}`;
    return this.#send("GET", path + search);
  }

  #post<T>(path: string, body?: unknown): Promise<T> {
    return this.#send("POST", path, body);
  }

  async #send<T>(method: string, path: string, body?: unknown): Promise<T> {
    const within_ms = this.#options.within_ms ?? WITHIN_MS;
    const response = await this.#fetch(path, {
      method,
      headers: {
        ...(method === "GET" ? {} : { authorization: `Bearer ${this.#options.token()}` }),
        ...(body === undefined ? {} : { "content-type": "application/json" }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      signal: AbortSignal.timeout(within_ms),
    });
    return (response.status === 204 ? undefined : await response.json()) as T;
  }

  async #fetch(path: string, init: RequestInit): Promise<Response> {
    const response = await this.#reach(path, init);
    if (response.ok) return response;
    const body = await response.json().catch(() => undefined);
    throw fromProblem(body) ?? new PsmaError(
      "unavailable/agent",
      `Cannot talk to ${this.#options.url}: it answers ${response.status}, and not as psma does`,
    );
  }

  async #reach(path: string, init: RequestInit): Promise<Response> {
    const client = this.#http;
    try {
      return await fetch(this.#base + path, {
        ...init,
        ...(client === undefined ? {} : { client }),
      });
    } catch (cause) {
      if (cause instanceof DOMException && cause.name === "TimeoutError") {
        throw new PsmaError(
          "timeout/agent",
          `Cannot wait for ${this.#options.url}: no answer in time`,
          {
            cause,
          },
        );
      }
      if (init.signal?.aborted) throw cause;
      throw new PsmaError(
        "unavailable/agent",
        `Cannot reach the agent at ${this.#options.url}: nothing listens there`,
        { hint: "Start it with `psma run`, or name another --url.", cause },
      );
    }
  }
}

function at(name: string, rest?: string): string {
  const path = `/v1/volumes/${encodeURIComponent(name)}`;
  return rest === undefined ? path : `${path}/${rest}`;
}

function operationFailure({ verb, volume, error }: Operation): PsmaError {
  if (error === null) return new PsmaError("internal/operation", `Cannot ${verb} ${volume}`);
  return PsmaError.fromRecord({
    code: error.code,
    message: error.title,
    ...(error.hint === undefined ? {} : { hint: error.hint }),
  });
}
