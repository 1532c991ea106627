/** The journal keeps every appended sample until it is told to drop it, and its numbering for ever. */
import { deepEqual, equal, ok } from "node:assert/strict";
import { silentLog } from "../../../src/core/mod.ts";
import { Journal, type JournalOptions } from "../../../src/forecast/journal.ts";
import { decodeSegment } from "../../../src/forecast/journal_codec.ts";
import type { Sample } from "../../../src/forecast/types.ts";
import { tempDir } from "../../support/temp.ts";

const sample = (value: number): Sample => ({
  volume: "data",
  metric: "used_bytes",
  at_ms: 1_700_000_000_000 + value,
  value,
});
const open = (dir: string, more: Partial<JournalOptions> = {}) =>
  Journal.open({ dir, log: silentLog, first_seq: 100, ...more });
const valuesIn = (paths: readonly string[]) =>
  paths.flatMap((path) => decodeSegment(Deno.readFileSync(path))?.samples ?? [])
    .map((s) => [s.seq, s.value]);

Deno.test("Journal keeps samples and numbering over a restart, even when all was dropped", () => {
  using temp = tempDir();
  const first = open(temp.path);
  first.append([sample(1), sample(2)]);
  first.close();
  const second = open(temp.path, { first_seq: 5 });
  second.append([sample(3)]);
  deepEqual(valuesIn(second.rotate()), [[100, 1], [101, 2], [102, 3]]);
  second.drop(102);
  deepEqual(second.rotate(), []);
  second.close();
  const third = open(temp.path, { first_seq: 5 });
  equal(third.nextSeq, 103);
  third.close();
});

Deno.test("Journal cuts a torn tail off and goes on behind it", () => {
  using temp = tempDir();
  const first = open(temp.path);
  first.append([sample(1)]);
  first.append([sample(2)]);
  first.close();
  const path = `${temp.path}/0000000000000100.psmj`;
  Deno.truncateSync(path, Deno.statSync(path).size - 3);
  const second = open(temp.path);
  second.append([sample(9)]);
  deepEqual(valuesIn(second.rotate()), [[100, 1], [101, 9]]);
  second.close();
});

Deno.test("Journal drops only segments whose every sample is ingested", () => {
  using temp = tempDir();
  const journal = open(temp.path);
  journal.append([sample(1), sample(2)]);
  journal.rotate();
  journal.append([sample(3)]);
  equal(journal.rotate().length, 2);
  journal.drop(100);
  equal(journal.rotate().length, 2);
  journal.drop(101);
  deepEqual(valuesIn(journal.rotate()), [[102, 3]]);
  journal.close();
});

Deno.test("Journal stays within its limit by dropping its oldest segment", () => {
  using temp = tempDir();
  const journal = open(temp.path, { segment_bytes_max: 1000, journal_bytes_max: 5000 });
  for (let value = 0; value < 1000; value++) journal.append([sample(value)]);
  ok(journal.bytes <= 6000, `${journal.bytes} bytes`);
  const kept = valuesIn(journal.rotate()).map(([, value]) => value ?? 0);
  equal(kept.at(-1), 999);
  ok((kept[0] ?? 0) > 0);
  journal.close();
});

Deno.test("Journal begins anew beside a segment whose header is damaged", () => {
  using temp = tempDir();
  Deno.writeTextFileSync(`${temp.path}/0000000000000050.psmj`, "not a segment at all, just text");
  const journal = open(temp.path);
  journal.append([sample(4)]);
  deepEqual(valuesIn(journal.rotate()), [[100, 4]]);
  journal.close();
});
