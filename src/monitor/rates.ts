/**
 * From two readings of rising counters to rates per second. Pure.
 *
 * Faults handled: a counter that begins again (the device or process restarted), a 32-bit one that wraps,
 * readings that were missed, a wall clock that steps and a machine that slept. A rate over an unknown time
 * or from an unknown start is not guessed: there is none for that interval.
 */

/** Counters at one moment. Wall and monotonic time belong together. */
export interface Reading {
  readonly at_ms: number;
  readonly monotonic_ms: number;
  readonly counters: Readonly<Record<string, number>>;
}

/** What was odd about an interval. `clock-step` is also what a suspended machine looks like on waking. */
export type Oddity = "first" | "reset" | "gap" | "clock-step";

export interface Interval {
  /** Per second, of every counter; undefined where the interval gives no honest answer. */
  readonly rates: Readonly<Record<string, number>> | undefined;
  readonly elapsed_ms: number;
  readonly oddities: readonly Oddity[];
}

/** A reading that comes later than this many intervals is a gap: the average over it hides what happened. */
const GAP_INTERVALS = 3;
const WRAP = 2 ** 32;
/** A wrapped counter was in the last quarter and is now in the first one. */
const WRAP_MARGIN = WRAP / 4;

/**
 * Compares two readings of the same counters.
 * @param options.interval_ms the sampling interval. @param options.wraps names of 32-bit counters.
 */
export function compareReadings(
  before: Reading | undefined,
  now: Reading,
  { interval_ms, wraps = [] }: { interval_ms: number; wraps?: readonly string[] },
): Interval {
  if (before === undefined) return { rates: undefined, elapsed_ms: 0, oddities: ["first"] };
  const elapsed_ms = now.monotonic_ms - before.monotonic_ms;
  const oddities: Oddity[] = [];
  const wall_ms = now.at_ms - before.at_ms;
  if (Math.abs(wall_ms - elapsed_ms) > Math.max(1000, interval_ms / 2)) oddities.push("clock-step");
  if (elapsed_ms > GAP_INTERVALS * interval_ms) oddities.push("gap");
  const differences = differencesOf(before, now, wraps);
  if (differences === undefined) oddities.push("reset");
  const honest = differences !== undefined && elapsed_ms > 0 && !oddities.includes("gap");
  if (!honest) return { rates: undefined, elapsed_ms, oddities };
  const rates = Object.fromEntries(
    Object.entries(differences).map(([name, value]) => [name, value / elapsed_ms * 1000]),
  );
  return { rates, elapsed_ms, oddities };
}

/** @returns undefined when any counter began again: then all of them did. */
function differencesOf(
  before: Reading,
  now: Reading,
  wraps: readonly string[],
): Record<string, number> | undefined {
  const differences: Record<string, number> = {};
  for (const [name, value] of Object.entries(now.counters)) {
    const from = before.counters[name];
    if (from === undefined) return undefined;
    const wrapped = value < from && wraps.includes(name) && from >= WRAP - WRAP_MARGIN &&
      value <= WRAP_MARGIN;
    const difference = wrapped ? value + WRAP - from : value - from;
    if (difference < 0) return undefined;
    differences[name] = difference;
  }
  return differences;
}
