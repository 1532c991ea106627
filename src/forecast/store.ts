/** The child's database of samples: ingestion of journal segments, roll-ups, retention, reading back. */
import { PsmaError } from "../core/mod.ts";
import type { Database } from "./database.ts";
import { decodeSegment, type NumberedSample } from "./journal_codec.ts";
import { sql } from "./sql.ts";
import {
  type HistoryPoint,
  type HistoryQuery,
  type IngestResult,
  type Metric,
  METRICS,
} from "./types.ts";

const SAMPLES_PER_STATEMENT = 20_000;
const ROLLUP_LEVELS_MS = [3_600_000, 300_000, 60_000];

export interface Sampling {
  readonly points: number;
  readonly first_ms: number;
  readonly last_ms: number;
  readonly gap_ms: number;
}

export class SampleStore {
  readonly #database: Database;
  #series = new Map<string, number>();

  constructor(database: Database) {
    this.#database = database;
    database.run(sql("schema", "tables"));
    database.run(sql("schema", "retention"));
    this.#loadSeries();
  }

  /**
   * Takes what the segments hold beyond what is already here and makes it durable: exactly once,
   * because the highest sequence number commits together with the rows.
   */
  ingest(paths: readonly string[], nowMs: number): IngestResult {
    const done = Number(this.#database.row(sql("schema", "ingested"))["seq"]);
    const fresh = paths.flatMap((path) => readSegment(path))
      .filter((sample) => sample.seq > done && Number.isFinite(sample.value));
    const last = fresh.at(-1)?.seq;
    if (last === undefined) return { ingested_seq: done, samples: 0 };
    try {
      this.#database.transaction(() => {
        for (let at = 0; at < fresh.length; at += SAMPLES_PER_STATEMENT) {
          this.#insert(fresh.slice(at, at + SAMPLES_PER_STATEMENT));
        }
        this.#database.rows(sql("schema", "advance"), last);
      });
    } catch (error) {
      this.#loadSeries();
      throw error;
    }
    this.#expire(nowMs);
    this.#database.checkpoint();
    return { ingested_seq: last, samples: fresh.length };
  }

  /** Drops what is older than its retention and gives the space back. */
  compact(nowMs: number): void {
    this.#expire(nowMs);
    this.#database.checkpoint();
  }

  history(query: HistoryQuery): HistoryPoint[] {
    const { volume, metric, from_ms, to_ms, step_ms } = query;
    if (!(step_ms > 0) || !(to_ms >= from_ms)) {
      throw new PsmaError("usage/history", "Cannot read history: its range is not a range");
    }
    if (!this.loadPoints(volume, metric, step_ms)) return [];
    const step = Math.max(1, Math.round(step_ms));
    const level = isLevel(metric) ? 1 : 0;
    return this.#database.rows(sql("rollup", "history"), step, step, level, from_ms, to_ms)
      .map((row) => ({ at_ms: Number(row["at_ms"]), value: Number(row["value"]) }));
  }

  /** Reads every block of the tables. @throws {PsmaError} forecast/query when one of them is damaged. */
  readAll(): void {
    this.#database.row(sql("schema", "read_all"));
  }

  /** Fills the table `points` for one series, as fine as a step asks for. @returns false for a series never seen. */
  loadPoints(volume: string, metric: Metric, stepMs: number): boolean {
    const id = this.#series.get(seriesKey(volume, metric));
    if (id === undefined) return false;
    const finest = ROLLUP_LEVELS_MS.find((level) => level <= stepMs) ?? 0;
    this.#database.rows(sql("rollup", "points"), id, finest, isLevel(metric) ? 1 : 0);
    return true;
  }

  sampling(nowMs: number): Sampling {
    const row = this.#database.row(sql("rollup", "sampling"), nowMs);
    return {
      points: Number(row["points"]),
      first_ms: Number(row["first_ms"] ?? 0),
      last_ms: Number(row["last_ms"] ?? 0),
      gap_ms: Number(row["gap_ms"] ?? 0),
    };
  }

  /** Turns `points` into the regular series `y(i, v)`. */
  regularise(metric: Metric, lastMs: number, stepMs: number, slotsMax: number): void {
    const level = isLevel(metric) ? 1 : 0;
    this.#database.rows(sql("rollup", "regular"), lastMs, stepMs, level, lastMs, slotsMax);
  }

  #insert(samples: readonly NumberedSample[]): void {
    const ids = samples.map((sample) => this.#seriesId(sample));
    const times = samples.map((sample) => Math.round(sample.at_ms));
    const values = samples.map((sample) => sample.value);
    this.#database.run(sql("rollup", "incoming"));
    this.#database.runWith(sql("rollup", "take"), ids, times, values);
    for (const step of ["raw", "summarise", "merge"]) this.#database.run(sql("rollup", step));
  }

  #seriesId(sample: NumberedSample): number {
    const key = seriesKey(sample.volume, sample.metric);
    let id = this.#series.get(key);
    if (id === undefined) {
      id = this.#series.size + 1;
      this.#series.set(key, id);
      this.#database.rows(sql("schema", "add_series"), id, sample.volume, sample.metric);
    }
    return id;
  }

  #loadSeries(): void {
    const rows = this.#database.rows(sql("schema", "series"));
    this.#series = new Map(
      rows.map((row) => [`${row["volume"]} ${row["metric"]}`, Number(row["series_id"])]),
    );
  }

  #expire(nowMs: number): void {
    this.#database.rows(sql("rollup", "expire_raw"), Math.round(nowMs));
    this.#database.rows(sql("rollup", "expire_rollup"), Math.round(nowMs));
  }
}

export function isLevel(metric: Metric): boolean {
  return METRICS[metric] === "level";
}

function seriesKey(volume: string, metric: Metric): string {
  return `${volume} ${metric}`;
}

/** A segment that was dropped because the journal was full is simply not there any more. */
function readSegment(path: string): readonly NumberedSample[] {
  try {
    return decodeSegment(Deno.readFileSync(path))?.samples ?? [];
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
}
