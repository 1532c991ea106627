/**
 * HTTP to a store server: one call, checked, bounded in time and length, and repeated while that can help.
 * Every call of the protocol may be repeated: it reads, it sets a state, or it carries an idempotency key.
 */
import { z } from "@hono/zod-openapi";
import {
  type Clock,
  fromProblem,
  isLoopback,
  type Log,
  PsmaError,
  readToken,
  type Rng,
} from "../core/mod.ts";

const ATTEMPTS = 4;
const BACKOFF_MS = 100;
const BACKOFF_MS_MAX = 2000;
const TIMEOUT_MS = 10_000;
/** The longest honest answer is a list of 4,096 volumes. */
const MAX_ANSWER_BYTES = 8 * 1024 ** 2;

export interface HttpClientOptions {
  readonly log: Log;
  readonly clock: Clock;
  readonly rng: Rng;
  readonly token_file?: string | undefined;
  readonly ca_file?: string | undefined;
  /** Of one attempt. */
  readonly timeout_ms?: number;
}

export interface Call<T> {
  readonly method: "GET" | "POST" | "PATCH" | "DELETE";
  readonly path: string;
  readonly body?: unknown;
  readonly idempotency_key?: string;
  /** What the answer must look like. */
  readonly answer: z.ZodType<T>;
}

/** For answers without a body. */
export const Nothing: z.ZodType<undefined> = z.undefined();

export class HttpClient {
  readonly #base: string;
  readonly #client: Deno.HttpClient;
  readonly #options: HttpClientOptions;

  /**
   * @param store its name in the configuration, for messages.
   * @param url `http://127.0.0.1:9320`, `https://store.example:9320` or `unix:/path`.
   * @throws {PsmaError} config/store when the URL is none of these, or would send a token in the clear.
   */
  constructor(readonly store: string, url: string, options: HttpClientOptions) {
    this.#options = options;
    const { base, socket } = parseUrl(store, url);
    this.#base = base;
    this.#client = Deno.createHttpClient({
      ...(socket === undefined ? {} : { proxy: { transport: "unix", path: socket } }),
      ...(options.ca_file === undefined
        ? {}
        : { caCerts: [readCertificate(store, options.ca_file)] }),
    });
  }

  close(): void {
    this.#client.close();
  }

  /** @throws {PsmaError} store/unreachable, timeout/store, store/protocol, config/token-file, or what the store refused with. */
  async call<T>(call: Call<T>): Promise<T> {
    const { log, clock, rng } = this.#options;
    for (let attempt = 1;; attempt++) {
      try {
        return await this.#attempt(call);
      } catch (error) {
        const again = error instanceof PsmaError && error.meaning.retryable && attempt < ATTEMPTS;
        if (!again) throw error;
        const { method, path } = call;
        log.debug("store call failed, trying again", { method, path, code: error.code, attempt });
        const longest_ms = Math.min(BACKOFF_MS * 2 ** attempt, BACKOFF_MS_MAX);
        await clock.sleep(longest_ms * (0.5 + rng.float() / 2));
      }
    }
  }

  async #attempt<T>(call: Call<T>): Promise<T> {
    const { method, path, body, idempotency_key } = call;
    const { clock, token_file, timeout_ms = TIMEOUT_MS } = this.#options;
    const headers = new Headers({ accept: "application/json" });
    // Read each time: a token that was replaced is in force at once.
    if (token_file !== undefined) {
      headers.set("authorization", `Bearer ${readToken(token_file)}`);
    }
    if (idempotency_key !== undefined) headers.set("idempotency-key", idempotency_key);
    if (body !== undefined) headers.set("content-type", "application/json");
    const late = new AbortController(), done = new AbortController();
    clock.sleep(timeout_ms, done.signal).then(() => late.abort(), () => {});
    try {
      const response = await fetch(this.#base + path, {
        method,
        headers,
        client: this.#client,
        // A redirect would carry the token to a place that nobody configured.
        redirect: "manual",
        signal: late.signal,
        body: body === undefined ? null : JSON.stringify(body),
      });
      const text = await boundedText(response);
      if (!response.ok) throw this.#refusal(call, response.status, text);
      return this.#read(call, text);
    } catch (error) {
      if (error instanceof PsmaError) throw error;
      throw late.signal.aborted ? this.#late(call, timeout_ms) : this.#unreachable(call, error);
    } finally {
      done.abort();
    }
  }

  #read<T>({ method, path, answer }: Call<T>, text: string): T {
    const parsed = answer.safeParse(text === "" ? undefined : parseJson(text));
    if (parsed.success) return parsed.data;
    throw new PsmaError(
      "store/protocol",
      `Cannot use store ${this.store}: its answer to ${method} ${path} is not what the protocol says`,
      { hint: "Check that the URL is a PSMA data store of this version.", cause: parsed.error },
    );
  }

  /** What the store says is kept: its code, sentence and hint. */
  #refusal({ method, path }: Call<unknown>, status: number, text: string): PsmaError {
    const told = fromProblem(parseJson(text));
    if (told !== undefined) return told;
    const code = status >= 500 ? "unavailable/store" : "store/protocol";
    return new PsmaError(
      code,
      `Cannot use store ${this.store}: ${method} ${path} was answered with HTTP ${status}`,
      { hint: "Check that the URL is a PSMA data store." },
    );
  }

  #late({ method, path }: Call<unknown>, timeout_ms: number): PsmaError {
    return new PsmaError(
      "timeout/store",
      `Cannot use store ${this.store}: ${method} ${path} took more than ${timeout_ms} ms`,
    );
  }

  #unreachable({ method, path }: Call<unknown>, cause: unknown): PsmaError {
    const reason = cause instanceof Error ? cause.message : String(cause);
    return new PsmaError(
      "store/unreachable",
      `Cannot reach store ${this.store}: ${method} ${path}: ${reason}`,
      { hint: "Check that the store runs, and its URL in the configuration.", cause },
    );
  }
}

function parseUrl(store: string, url: string): { base: string; socket?: string } {
  const refused = (why: string, hint: string) =>
    new PsmaError("config/store", `Cannot use store ${store}: ${url} ${why}`, { hint });
  if (url.startsWith("unix:/")) {
    return { base: "http://localhost", socket: url.slice("unix:".length) };
  }
  const parsed = URL.canParse(url) ? new URL(url) : undefined;
  if (!parsed || !/^https?:$/.test(parsed.protocol) || parsed.username !== "") {
    throw refused("is not a store's URL", "Write it like https://store.example:9320.");
  }
  if (parsed.protocol === "http:" && !isLoopback(parsed.hostname.replace(/^\[|\]$/g, ""))) {
    throw refused("would send the token in the clear", "Use https, or a tunnel to 127.0.0.1.");
  }
  return { base: parsed.origin + parsed.pathname.replace(/\/$/, "") };
}

function readCertificate(store: string, path: string): string {
  try {
    return Deno.readTextFileSync(path);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new PsmaError("config/store", `Cannot use store ${store}: ${path}: ${reason}`, { cause });
  }
}

async function boundedText(response: Response): Promise<string> {
  const decoder = new TextDecoder();
  let text = "", length = 0;
  for await (const part of response.body ?? []) {
    length += part.length;
    if (length > MAX_ANSWER_BYTES) {
      throw new PsmaError("store/protocol", "Cannot use the store: its answer is too long");
    }
    text += decoder.decode(part, { stream: true });
  }
  return text + decoder.decode();
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
