/**
 * Errors on the wire: RFC 9457 problem details, with our code and the hint.
 *
 * What somebody foresaw is told in its own sentence. What nobody did is logged, and not told: its message
 * may name what a client should not know.
 */
import { meaningOf, PsmaError, toPsmaError, UNEXPECTED } from "./errors.ts";
import type { Log } from "./log.ts";

export const PROBLEM_TYPE = "application/problem+json";

export interface Problem {
  readonly code: string;
  /** What kind of failure this is, the same for every instance of the code's family. */
  readonly title: string;
  /** The sentence about this very failure. */
  readonly detail: string;
  readonly hint?: string;
  readonly status: number;
}

const TITLES: Readonly<Record<string, string>> = {
  usage: "The request is not valid",
  config: "The configuration is not valid",
  auth: "The token is missing or wrong",
  forbidden: "Not permitted",
  "not-found": "There is no such thing",
  state: "Not possible in this state",
  verify: "Verification failed",
  fenced: "A newer owner has taken over",
  forecast: "No forecast yet",
  io: "Input or output failed",
  sys: "The operating system refused",
  store: "The data store failed",
  unavailable: "Not available now",
  timeout: "It took too long",
};

/** The record that a client gets. */
export function toProblem(error: unknown): Problem {
  const { code, message, hint } = tellable(toPsmaError(error));
  const title = TITLES[code.split("/", 1)[0] ?? ""] ?? "Internal failure";
  const status = meaningOf(code).http;
  return { code, title, status, detail: message, ...(hint === undefined ? {} : { hint }) };
}

/** The error again, on the client's side. Undefined when `body` is no problem of ours. */
export function fromProblem(body: unknown): PsmaError | undefined {
  if (typeof body !== "object" || body === null) return undefined;
  const { code, detail, hint } = body as Partial<Record<keyof Problem, unknown>>;
  if (typeof code !== "string" || typeof detail !== "string") return undefined;
  return new PsmaError(code, detail, typeof hint === "string" ? { hint } : {});
}

/** The HTTP answer that says what went wrong. */
export function problemResponse(error: unknown): Response {
  const problem = toProblem(error);
  return new Response(JSON.stringify(problem), {
    status: problem.status,
    headers: {
      "content-type": PROBLEM_TYPE,
      "cache-control": "no-store",
      ...(problem.status === 401 ? { "www-authenticate": "Bearer" } : {}),
    },
  });
}

/** Logs a failure that is the server's own, with all that is known of it. */
export function logFailure(
  log: Log,
  error: unknown,
  request: { readonly method: string; readonly path: string },
): void {
  const { code, message, meaning } = toPsmaError(error);
  if (meaning.http < 500) return;
  const { method, path } = request;
  log.error("request failed", { method, path, code, reason: message });
}

function tellable(error: PsmaError): PsmaError {
  if (error.code !== UNEXPECTED) return error;
  return new PsmaError(UNEXPECTED, "Cannot do this: something unexpected failed", {
    hint: "The server's log says what.",
    cause: error,
  });
}
