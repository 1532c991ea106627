/** What a code means outside, and that nothing is lost on the way there. */
import { deepEqual, equal } from "node:assert/strict";
import { meaningOf, PsmaError, toPsmaError } from "../../../src/core/errors.ts";

Deno.test("meaningOf() prefers the whole code, then its family, then internal", () => {
  deepEqual(meaningOf("store/full"), { http: 507, errno: 28, exit: 69, retryable: false });
  deepEqual(meaningOf("store/unreachable"), { http: 502, errno: 5, exit: 69, retryable: true });
  equal(meaningOf("store/protocol").retryable, false);
  deepEqual(meaningOf("never-heard-of"), meaningOf("internal"));
  equal(meaningOf("").http, 500);
});

Deno.test("exit codes are the ones that scripts rely on", () => {
  const cases: [string, number][] = [
    ["internal/any", 1],
    ["io/short-read", 1],
    ["usage/size", 2],
    ["not-found/volume", 3],
    ["state/mirror", 4],
    ["verify/digest", 5],
    ["unavailable/agent", 69],
    ["sys/permission", 77],
    ["config/key", 78],
  ];
  deepEqual(cases.map(([code]) => meaningOf(code).exit), cases.map(([, exit]) => exit));
});

Deno.test("PsmaError survives the way through a record", () => {
  const error = new PsmaError("store/full", "Cannot grow data: the store is full", {
    hint: "Free some space.",
    cause: new Error("ENOSPC"),
  });
  const record = structuredClone(error.toRecord());
  deepEqual(record, {
    code: "store/full",
    message: "Cannot grow data: the store is full",
    hint: "Free some space.",
  });
  const back = PsmaError.fromRecord(record);
  deepEqual([back.code, back.message, back.hint, back.meaning], [
    error.code,
    error.message,
    error.hint,
    error.meaning,
  ]);
  equal("hint" in new PsmaError("io", "x").toRecord(), false);
  equal(PsmaError.fromRecord({ code: "io", message: "x" }).hint, undefined);
});

Deno.test("toPsmaError() keeps ours, and wraps what is not with its cause", () => {
  const ours = new PsmaError("io", "x");
  equal(toPsmaError(ours), ours);
  const cause = new TypeError("no such thing");
  const wrapped = toPsmaError(cause, "io/read");
  deepEqual([wrapped.code, wrapped.message, wrapped.cause], ["io/read", "no such thing", cause]);
  deepEqual([toPsmaError("text").code, toPsmaError("text").message], [
    "internal/unexpected",
    "text",
  ]);
});
