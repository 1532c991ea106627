/** Log lines: level, order of fields, quoting, and fields that stay. */
import { deepEqual } from "node:assert/strict";
import type { Clock } from "../../../src/core/clock.ts";
import { createLog, type LogLevel } from "../../../src/core/log.ts";

const clock: Clock = {
  nowMs: () => Date.UTC(2026, 0, 2, 3, 4, 5, 6),
  monotonicMs: () => 0,
  sleep: () => Promise.resolve(),
};

function capture(level?: LogLevel) {
  const lines: string[] = [];
  const write = (line: string) => lines.push(line.replace("2026-01-02T03:04:05.006Z ", ""));
  return { lines, log: createLog({ write, clock, ...(level === undefined ? {} : { level }) }) };
}

Deno.test("createLog() writes time, level, message and fields", () => {
  const lines: string[] = [];
  createLog({ write: (line) => lines.push(line), clock }).info("mirror ready", {
    volume: "data",
    lag_ms: 12,
    verified: true,
  });
  deepEqual(lines, [
    "2026-01-02T03:04:05.006Z info mirror ready volume=data lag_ms=12 verified=true",
  ]);
});

Deno.test("createLog() drops lines below its level, info by default", () => {
  const { lines, log } = capture();
  log.debug("a");
  log.info("b");
  const strict = capture("error");
  strict.log.warn("c");
  strict.log.error("d");
  deepEqual([...lines, ...strict.lines], ["info b", "error d"]);
});

Deno.test("values that would break a line apart are quoted; undefined ones left out", () => {
  const { lines, log } = capture();
  log.warn("x", {
    reason: "two words",
    path: "/srv/a-b:c",
    text: 'a "b"\n',
    empty: "",
    none: undefined,
  });
  deepEqual(lines, ['warn x reason="two words" path=/srv/a-b:c text="a \\"b\\"\\n" empty=""']);
});

Deno.test("with() adds fields to every line, the line's own last and stronger", () => {
  const { lines, log } = capture();
  const child = log.with({ volume: "data" }).with({ epoch: 3 });
  child.info("switched", { epoch: 4, to: "far" });
  child.debug("quiet");
  deepEqual(lines, ["info switched volume=data epoch=4 to=far"]);
});
