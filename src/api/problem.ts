/** Errors on the wire: RFC 9457 problem details with our code and the hint. */
import { meaningOf, PsmaError, toPsmaError } from "../core/mod.ts";

export const PROBLEM_TYPE = "application/problem+json";

export interface Problem {
  readonly code: string;
  /** What kind of failure this is, the same for every instance of the code. */
  readonly title: string;
  /** The sentence about this very failure. */
  readonly detail: string;
  readonly hint?: string;
  readonly status: number;
}

/** The HTTP answer that says what went wrong. Only what the error's own sentence says leaves. */
export function problemResponse(error: unknown, status?: number): Response {
  const problem = toProblem(error, status);
  return new Response(JSON.stringify(problem), {
    status: problem.status,
    headers: {
      "content-type": PROBLEM_TYPE,
      "cache-control": "no-store",
      ...(problem.status === 401 ? { "www-authenticate": "Bearer" } : {}),
    },
  });
}

export function toProblem(error: unknown, status?: number): Problem {
  const known = toPsmaError(error);
  return {
    code: known.code,
    title: titleOf(known.code),
    detail: known.message,
    ...(known.hint === undefined ? {} : { hint: known.hint }),
    status: status ?? meaningOf(known.code).http,
  };
}

/** The error again, on the client's side. Undefined when `body` is no problem of ours. */
export function fromProblem(body: unknown): PsmaError | undefined {
  if (typeof body !== "object" || body === null) return undefined;
  const { code, detail, hint } = body as Partial<Record<keyof Problem, unknown>>;
  if (typeof code !== "string" || typeof detail !== "string") return undefined;
  return new PsmaError(code, detail, typeof hint === "string" ? { hint } : {});
}

const TITLES: Readonly<Record<string, string>> = {
  usage: "The request is not valid",
  config: "The configuration is not valid",
  auth: "A token is needed",
  forbidden: "Not permitted",
  "not-found": "There is no such thing",
  state: "Not possible in this state",
  verify: "Verification failed",
  fenced: "Fenced by a newer epoch",
  forecast: "No forecast yet",
  io: "Input or output failed",
  sys: "The operating system refused",
  store: "The data store failed",
  unavailable: "Not available now",
  timeout: "It took too long",
};

function titleOf(code: string): string {
  return TITLES[code.split("/", 1)[0] ?? ""] ?? "Internal failure";
}
