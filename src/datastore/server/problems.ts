/** What the routes refuse or fail with, as problems. */
import type { ErrorHandler } from "hono";
import { HTTPException } from "hono/http-exception";
import type { z, ZodError } from "zod";
import { type Log, logFailure, problemResponse, PsmaError } from "../../core/mod.ts";

/** Answers with what the error says. */
export function problemHandler(log: Log): ErrorHandler {
  return (thrown, c) => {
    const error = thrown instanceof HTTPException ? unreadable(thrown) : thrown;
    logFailure(log, error, c.req);
    return problemResponse(error);
  };
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

function unreadable({ message }: HTTPException): PsmaError {
  return new PsmaError("usage/request", `Cannot read the request: ${message}`, {
    hint: "Send one JSON object with content-type application/json.",
  });
}
