/** Errors as `application/problem+json` (RFC 9457), by the one table of codes. */
import type { Context, ErrorHandler } from "hono";
import { HTTPException } from "hono/http-exception";
import type { ContentfulStatusCode } from "hono/utils/http-status";
import type { z, ZodError } from "zod";
import { type Log, PsmaError, toPsmaError } from "../../core/mod.ts";

/** What a family of codes means, for a person. */
const TITLES: Readonly<Record<string, string>> = {
  usage: "The request is not valid",
  auth: "The token is missing or wrong",
  "not-found": "There is no such thing",
  state: "This is not possible now",
  fenced: "A newer owner has taken over",
  store: "The store cannot do this",
  unavailable: "The store is busy",
  timeout: "The store took too long",
};

/** Answers with what the error says; what nobody expected is logged, and not told to strangers. */
export function problemHandler(log: Log): ErrorHandler {
  return (thrown, c) => {
    const error = asPsmaError(thrown);
    if (error.meaning.http >= 500) {
      log.error("request failed", {
        method: c.req.method,
        path: c.req.path,
        code: error.code,
        reason: error.message,
      });
    }
    return problem(c, error);
  };
}

export function problem(c: Context, { code, message, hint, meaning }: PsmaError): Response {
  const body = {
    code,
    title: TITLES[code.split("/", 1)[0] ?? ""] ?? "The store failed",
    status: meaning.http,
    detail: message,
    ...(hint === undefined ? {} : { hint }),
  };
  return c.body(JSON.stringify(body), meaning.http as ContentfulStatusCode, {
    "content-type": "application/problem+json",
  });
}

/** Turns what the schemas refuse into one sentence that names the field. */
export function refuseInvalid(error: ZodError): never {
  const issue = error.issues[0];
  const field = issue && issue.path.length > 0 ? issue.path.map(String).join(".") : "it";
  throw new PsmaError("usage/request", `Cannot read the request: ${field} is not valid`, {
    hint: issue ? sentenceOf(issue) : "See /openapi.json.",
  });
}

function sentenceOf(issue: z.core.$ZodIssue): string {
  return `${issue.message}. See /openapi.json.`;
}

function asPsmaError(thrown: Error): PsmaError {
  if (thrown instanceof PsmaError) return thrown;
  if (thrown instanceof HTTPException) {
    return new PsmaError("usage/request", `Cannot read the request: ${thrown.message}`, {
      hint: "Send one JSON object with content-type application/json.",
    });
  }
  return toPsmaError(thrown);
}
