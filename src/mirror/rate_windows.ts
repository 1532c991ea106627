/**
 * Hours of the week with a ceiling of their own for the copier, in UTC: a local time would come twice, or not at
 * all, on two days of the year. The first window that covers a moment counts; a window that ends before it begins
 * goes on after midnight and belongs to the day on which it began.
 */
import type { RateWindow } from "../volume/mod.ts";

const MINUTE_MS = 60_000, DAY_MINUTES = 1440, DAY_MS = DAY_MINUTES * MINUTE_MS, WEEK_DAYS = 7;

/** Ceilings of the copier, as configured. Null: none. */
export interface Ceilings {
  readonly max_rate_bytes_per_s: number | null;
  readonly rate_windows?: readonly RateWindow[];
}

/** A stretch of time in which one ceiling holds. */
export interface CeilingSpan {
  /** Wall time; the last span of a list goes on for ever. */
  readonly untilMs: number;
  readonly ceiling: number | null;
}

/** @param atMs wall time. @returns bytes per second; null for none. */
export function ceilingAt(
  { max_rate_bytes_per_s, rate_windows = [] }: Ceilings,
  atMs: number,
): number | null {
  const window = rate_windows.find((one) => covers(one, atMs));
  return window === undefined ? max_rate_bytes_per_s : window.max_rate_bytes_per_s;
}

/** The ceilings from `fromMs` on, for a week at most, neighbours differing. */
export function ceilingSpans(ceilings: Ceilings, fromMs: number): CeilingSpan[] {
  const edges = edgesAfter(ceilings.rate_windows ?? [], fromMs);
  const spans: CeilingSpan[] = [];
  let ceiling = ceilingAt(ceilings, fromMs);
  for (const atMs of edges) {
    const next = ceilingAt(ceilings, atMs);
    if (next === ceiling) continue;
    spans.push({ untilMs: atMs, ceiling });
    ceiling = next;
  }
  return [...spans, { untilMs: Infinity, ceiling }];
}

function edgesAfter(windows: readonly RateWindow[], fromMs: number): number[] {
  const midnightMs = Math.floor(fromMs / DAY_MS) * DAY_MS;
  const edges = new Set<number>();
  for (let day = 0; day <= WEEK_DAYS; day++) {
    for (const { from_minute, to_minute } of windows) {
      edges.add(midnightMs + day * DAY_MS + from_minute * MINUTE_MS);
      edges.add(midnightMs + day * DAY_MS + to_minute * MINUTE_MS);
    }
  }
  return [...edges].filter((atMs) => atMs > fromMs).sort((a, b) => a - b);
}

function covers({ from_minute, to_minute, days }: RateWindow, atMs: number): boolean {
  const minute = atMs / MINUTE_MS - Math.floor(atMs / DAY_MS) * DAY_MINUTES;
  const today = new Date(atMs).getUTCDay(), yesterday = (today + WEEK_DAYS - 1) % WEEK_DAYS;
  if (from_minute < to_minute) {
    return days.includes(today) && minute >= from_minute && minute < to_minute;
  }
  return (minute >= from_minute && days.includes(today)) ||
    (minute < to_minute && days.includes(yesterday));
}
