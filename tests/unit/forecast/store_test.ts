/** Samples reach the database exactly once and come back rolled up, whatever order they came in. */
import { deepEqual, equal } from "node:assert/strict";
import { encodeRecord, encodeSegmentHeader } from "../../../src/forecast/journal_codec.ts";
import { SampleStore } from "../../../src/forecast/store.ts";
import type { Sample } from "../../../src/forecast/types.ts";
import { tempDir } from "../../support/temp.ts";
import { withDatabase } from "../../support/duckdb.ts";

const HOUR_MS = 3_600_000;
const START_MS = 472_222 * HOUR_MS;

const used = (at_s: number, value: number): Sample => ({
  volume: "data",
  metric: "used_bytes",
  at_ms: START_MS + at_s * 1000,
  value,
});
const iops = (at_s: number, value: number): Sample => ({
  ...used(at_s, value),
  metric: "write_iops",
});

function segment(path: string, seq: number, samples: readonly Sample[]): string {
  Deno.writeFileSync(path, encodeSegmentHeader(seq));
  Deno.writeFileSync(path, encodeRecord(seq, samples), { append: true });
  return path;
}

const history = (store: SampleStore, metric: Sample["metric"], step_s: number) =>
  store.history({
    volume: "data",
    metric,
    from_ms: START_MS - 400 * 24 * HOUR_MS,
    to_ms: START_MS + 400 * 24 * HOUR_MS,
    step_ms: step_s * 1000,
  }).map(({ at_ms, value }) => [(at_ms - START_MS) / 1000, value]);

Deno.test("ingest() of a segment that was ingested already adds nothing", () =>
  withDatabase((database) => {
    using temp = tempDir();
    const store = new SampleStore(database);
    const one = segment(temp.file("1"), 10, [used(0, 1), used(1, 2)]);
    const two = segment(temp.file("2"), 12, [used(2, 3)]);
    deepEqual(store.ingest([one], START_MS), { ingested_seq: 11, samples: 2 });
    deepEqual(store.ingest([one, two], START_MS), { ingested_seq: 12, samples: 1 });
    deepEqual(store.ingest([one, two, temp.file("gone")], START_MS), {
      ingested_seq: 12,
      samples: 0,
    });
    deepEqual(history(store, "used_bytes", 1), [[0, 1], [1, 2], [2, 3]]);
    equal(database.row("SELECT sum(samples) AS n FROM rollup WHERE level_ms = 60000")["n"], 3);
  }));

Deno.test("history() keeps the last value of a level and the mean of a rate", () =>
  withDatabase((database) => {
    using temp = tempDir();
    const store = new SampleStore(database);
    const samples = [0, 20, 40, 60, 80].flatMap((s) => [used(s, s), iops(s, s)]);
    store.ingest([segment(temp.file("1"), 0, samples)], START_MS);
    deepEqual(history(store, "used_bytes", 60), [[0, 40], [60, 80]]);
    deepEqual(history(store, "write_iops", 60), [[0, 20], [60, 70]]);
    deepEqual(history(store, "inodes_used", 60), []);
  }));

Deno.test("samples that come late merge into their slot", () =>
  withDatabase((database) => {
    using temp = tempDir();
    const store = new SampleStore(database);
    store.ingest([segment(temp.file("1"), 0, [used(50, 5), used(70, 7)])], START_MS);
    store.ingest([segment(temp.file("2"), 2, [used(10, 1), used(55, 6)])], START_MS);
    deepEqual(history(store, "used_bytes", 60), [[0, 6], [60, 7]]);
    deepEqual(
      database.rows(
        "SELECT samples, total, low, high FROM rollup WHERE level_ms = 60000 ORDER BY slot_ms",
      ),
      [{ samples: 3, total: 12, low: 1, high: 6 }, { samples: 1, total: 7, low: 7, high: 7 }],
    );
  }));

Deno.test("what raw samples have been dropped is still there by the minute, then by the hour", () =>
  withDatabase((database) => {
    using temp = tempDir();
    const store = new SampleStore(database);
    const samples = Array.from({ length: 72 }, (_, i) => used(i * 3600, i));
    store.ingest([segment(temp.file("1"), 0, samples)], START_MS + 71 * HOUR_MS);
    equal(database.row("SELECT count(*) AS n FROM raw")["n"], 3);
    equal(database.row("SELECT count(*) AS n FROM rollup WHERE level_ms = 60000")["n"], 49);
    deepEqual(history(store, "used_bytes", 1).map(([, v]) => v), samples.map((s) => s.value));
    deepEqual(
      history(store, "used_bytes", 7200).map(([, v]) => v),
      samples.filter((_, i) => i % 2).map((s) => s.value),
    );
  }));

Deno.test("regularise() fills gaps linearly and ends at the newest sample", () =>
  withDatabase((database) => {
    using temp = tempDir();
    const store = new SampleStore(database);
    store.ingest(
      [segment(temp.file("1"), 0, [used(0, 0), used(1, 10), used(5, 50), used(6, 66)])],
      START_MS,
    );
    store.loadPoints("data", "used_bytes", 1000);
    store.regularise("used_bytes", START_MS + 6000, 1000, 100);
    const series = () => database.rows("SELECT v FROM y ORDER BY i").map((row) => row["v"]);
    deepEqual(series(), [0, 10, 20, 30, 40, 50, 66]);
    store.regularise("used_bytes", START_MS + 6000, 2000, 100);
    deepEqual(series(), [0, 10, 38, 66]);
    store.regularise("used_bytes", START_MS + 6000, 1000, 2);
    deepEqual(series(), [50, 66]);
  }));
