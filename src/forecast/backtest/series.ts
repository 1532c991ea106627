/** Series out of CSV files: read, sorted, rolled up to a regular step, gaps filled. */
import { PsmaError } from "../../core/mod.ts";
import { type BacktestTask, readRows } from "./task.ts";

export interface Point {
  /** Seconds since the epoch. */
  readonly at_s: number;
  readonly value: number;
}

/** Reads a text file, gunzipped where its name ends in .gz. @throws {PsmaError} not-found/file, io/read. */
export async function readText(path: string): Promise<string> {
  try {
    using file = await Deno.open(path);
    const plain = path.endsWith(".gz")
      ? file.readable.pipeThrough(new DecompressionStream("gzip"))
      : file.readable;
    return await new Response(plain).text();
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) {
      throw new PsmaError("not-found/file", `Cannot read ${path}: there is no such file`);
    }
    const reason = error instanceof Error ? error.message : String(error);
    throw new PsmaError("io/read", `Cannot read ${path}: ${reason}`);
  }
}

/** Columns by which a file may call the series, the time and, unless one is named, the value. */
const SERIES_NAMES = ["series", "volume"];
const TIME_NAMES = ["t", "time", "timestamp", "at", "ds", "k"];
const VALUE_NAMES = ["value", "used_bytes", "y"];

export interface SeriesColumns {
  /** Default: a column called value, used_bytes or y. */
  readonly value?: string | undefined;
}

/**
 * Series of a CSV file, each sorted by time. A time is seconds or milliseconds since the epoch or ISO 8601.
 * Without a column `series` or `volume` there is one series, called "". Empty values are gaps.
 * @throws {PsmaError} usage/series naming what is missing or unreadable, and where.
 */
export function parseSeries(text: string, columns: SeriesColumns = {}): Map<string, Point[]> {
  const rows = readRows(text, "series");
  const header = Object.keys(rows[0] ?? {});
  const column = (what: string, names: readonly string[]): string => {
    const found = header.find((name) => names.includes(name));
    if (found !== undefined) return found;
    throw new PsmaError(
      "usage/series",
      `Cannot read series: there is no column for the ${what} (${names.join(", ")})`,
      { hint: `The columns are ${header.join(", ") || "none"}.` },
    );
  };
  const name = header.find((one) => SERIES_NAMES.includes(one));
  const time = column("time", TIME_NAMES);
  const value = column("value", columns.value === undefined ? VALUE_NAMES : [columns.value]);
  const series = new Map<string, Point[]>();
  for (const [index, row] of rows.entries()) {
    const cell = row[value] ?? "";
    if (cell === "") continue;
    const point = { at_s: parseTime(row[time] ?? ""), value: Number(cell) };
    if (!Number.isFinite(point.at_s) || !Number.isFinite(point.value)) {
      throw new PsmaError(
        "usage/series",
        `Cannot read series: line ${index + 2} is not a time and a number (${row[time]}, ${cell})`,
      );
    }
    const key = name === undefined ? "" : row[name] ?? "";
    const points = series.get(key);
    if (points === undefined) series.set(key, [point]);
    else points.push(point);
  }
  for (const points of series.values()) points.sort((a, b) => a.at_s - b.at_s);
  return series;
}

/** Beyond this a number of seconds would be in the year 5138: it counts milliseconds. */
const MILLISECONDS_FROM = 1e11;

function parseTime(text: string): number {
  if (text === "") return NaN;
  const number = Number(text);
  if (Number.isNaN(number)) return Date.parse(text) / 1000;
  return Math.abs(number) >= MILLISECONDS_FROM ? number / 1000 : number;
}

/** Slots of `step_s`, aligned to the epoch; empty ones are filled linearly between their neighbours. */
export function rollUp(
  points: readonly Point[],
  { step_s, agg }: Pick<BacktestTask, "step_s" | "agg">,
): number[] {
  if (agg === "raw") return points.map(({ value }) => value);
  const first = Math.floor((points[0]?.at_s ?? 0) / step_s);
  const slots: { total: number; count: number; last: number }[] = [];
  for (const { at_s, value } of points) {
    const at = Math.floor(at_s / step_s) - first;
    const slot = slots[at] ??= { total: 0, count: 0, last: value };
    slot.total += value;
    slot.count++;
    slot.last = value;
  }
  const values: number[] = [];
  for (let at = 0; at < slots.length; at++) {
    const slot = slots[at];
    if (slot === undefined) continue;
    const value = agg === "last" ? slot.last : slot.total / slot.count;
    const before = values.at(-1) ?? value;
    const gap = at - values.length + 1;
    for (let step = 1; step <= gap; step++) values.push(before + (value - before) * step / gap);
  }
  return values;
}

/** The usual distance of points, in seconds. */
export function usualStep(points: readonly Point[]): number {
  const gaps = points.slice(1).map(({ at_s }, at) => at_s - (points[at]?.at_s ?? at_s))
    .filter((gap) => gap > 0).sort((a, b) => a - b);
  return gaps[gaps.length >> 1] ?? 1;
}
