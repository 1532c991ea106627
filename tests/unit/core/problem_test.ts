import { deepEqual, equal, match, ok } from "node:assert/strict";
import {
  createLog,
  fromProblem,
  logFailure,
  problemResponse,
  PsmaError,
  toProblem,
} from "../../../src/core/mod.ts";

const full = new PsmaError("store/full", "Cannot grow data: the store is full", { hint: "Free." });

Deno.test("a foreseen error arrives as it was, under its family's title and its code's status", () => {
  const problem = toProblem(full);
  deepEqual(problem, {
    code: "store/full",
    title: "The data store failed",
    status: 507,
    detail: "Cannot grow data: the store is full",
    hint: "Free.",
  });
  deepEqual(fromProblem(problem)?.toRecord(), full.toRecord());
  for (const body of [undefined, null, "text", {}, { code: 7, detail: "x" }]) {
    equal(fromProblem(body), undefined);
  }
});

Deno.test("an unexpected error's own message stays here, also after it crossed a thread", () => {
  const crossed = PsmaError.fromRecord({ code: "internal/unexpected", message: "secret" });
  for (const error of [new TypeError("secret"), "secret", crossed]) {
    const problem = toProblem(error);
    equal(problem.status, 500);
    match(problem.detail, /^Cannot /);
    ok(!JSON.stringify(problem).includes("secret"));
  }
});

Deno.test("logFailure() tells all of the server's own failures, and nothing of the client's", () => {
  const lines: string[] = [];
  const log = createLog({ write: (line) => lines.push(line) });
  logFailure(log, new PsmaError("usage/size", "Cannot"), { method: "POST", path: "/v1" });
  deepEqual(lines, []);
  logFailure(log, new TypeError("secret"), { method: "POST", path: "/v1" });
  match(lines.join(""), /POST.*internal\/unexpected.*secret/);
});

Deno.test("problemResponse() asks for the token where it is missing, and is never kept", async () => {
  const response = problemResponse(new PsmaError("auth/token", "Cannot"));
  equal(response.status, 401);
  equal(response.headers.get("www-authenticate"), "Bearer");
  equal(response.headers.get("content-type"), "application/problem+json");
  equal(response.headers.get("cache-control"), "no-store");
  equal((await response.json()).status, 401);
});
