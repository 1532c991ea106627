/** Background promises: every failure is said once, and none escapes. */
import { deepEqual } from "node:assert/strict";
import { PsmaError } from "../../../src/core/errors.ts";
import { createLog } from "../../../src/core/log.ts";
import { supervise } from "../../../src/core/supervise.ts";

function capture() {
  const lines: string[] = [];
  return { lines, log: createLog({ write: (line) => lines.push(line.replace(/^\S+ /, "")) }) };
}

Deno.test("supervise() says the name, code and reason of a failure, and does not reject", async () => {
  const { lines, log } = capture();
  await supervise("sampler", Promise.reject(new PsmaError("io/read", "Cannot read: x is y")), log);
  await supervise("timer", Promise.reject("text"), log);
  deepEqual(lines, [
    'error sampler failed code=io/read reason="Cannot read: x is y"',
    "error timer failed code=internal/unexpected reason=text",
  ]);
});

Deno.test("supervise() is silent when all goes well", async () => {
  const { lines, log } = capture();
  deepEqual([await supervise("sampler", Promise.resolve(7), log), lines], [undefined, []]);
});
