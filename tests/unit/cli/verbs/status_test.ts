/** The status table fits the terminal: what is cut is the reason. */
import { deepEqual, equal, match, ok } from "node:assert/strict";
import { cutTo, painter, widthOf } from "../../../../src/cli/terminal.ts";
import type { Session } from "../../../../src/cli/verb.ts";
import { formatVolumes } from "../../../../src/cli/verbs/status.ts";
import { VOLUME } from "../../../support/recording_agent.ts";
import { stillClock } from "../../../support/still_clock.ts";

const REASON = "Cannot format /dev/loop0 as xfs: Filesystem must be larger than 300MB. ".repeat(4);

function sessionOf(columns: number, is_terminal = true): Session {
  const writer = { is_terminal, write: () => {}, columns: () => columns };
  return { stdout: writer, stderr: writer, clock: stillClock, paint: painter(true) } as never;
}

Deno.test("formatVolumes() cuts a long reason to the terminal, and nothing elsewhere", () => {
  const volumes = [{ ...VOLUME, state: "failed" as const, reason: REASON }, VOLUME];
  for (const columns of [40, 100, 120]) {
    const lines = formatVolumes(sessionOf(columns), volumes).split("\n");
    ok(lines.every((line) => widthOf(line) <= columns), `${columns}`);
    match(lines[1] ?? "", /failed/);
  }
  const wide = formatVolumes(sessionOf(120), volumes);
  match(wide, /failed.* \(Cannot format.*….*1KiB.*never/);
  ok(formatVolumes(sessionOf(80, false), volumes).includes(REASON));
});

Deno.test("cutTo() counts columns, not colours, and leaves no colour on", () => {
  equal(cutTo("short", 5), "short");
  equal(cutTo("longer", 5), "long…");
  const red = painter(true)("red", "longer");
  deepEqual([cutTo(red, 5), widthOf(cutTo(red, 5))], ["\x1b[31mlong…\x1b[0m", 5]);
  equal(cutTo("longer", 0), "");
});
