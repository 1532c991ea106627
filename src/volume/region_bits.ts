/** One bit per region of a volume, and runs of regions that are set. Pure. */
import type { RegionRun } from "../codec/mod.ts";

/** Hot path. */
export function setBit(words: Uint32Array, index: number): void {
  words[index >>> 5] = (words[index >>> 5] as number) | (1 << (index & 31));
}

export function setRun(words: Uint32Array, { first, count }: RegionRun): void {
  for (let region = first; region < first + count; region++) setBit(words, region);
}

export function addAll(to: Uint32Array, from: Uint32Array): void {
  for (let i = 0; i < to.length; i++) to[i] = (to[i] as number) | (from[i] as number);
}

export function isEmpty(words: Uint32Array): boolean {
  return words.every((word) => word === 0);
}

/** What is set, as runs, ascending. */
export function runsOf(words: Uint32Array): RegionRun[] {
  const runs: RegionRun[] = [];
  const has = (region: number) => ((words[region >>> 5] ?? 0) & (1 << (region & 31))) !== 0;
  for (let first = 0; first < words.length * 32; first++) {
    if (words[first >>> 5] === 0) first |= 31;
    else if (has(first)) {
      let end = first;
      while (has(end)) end++;
      runs.push({ first, count: end - first });
      first = end;
    }
  }
  return runs;
}

/** At most `most` runs that cover these: the smallest gaps are closed. */
export function closeGaps(runs: RegionRun[], most: number): RegionRun[] {
  if (runs.length <= most) return runs;
  const gapBefore = (i: number) => {
    const run = runs[i] as RegionRun, before = runs[i - 1] as RegionRun;
    return run.first - before.first - before.count;
  };
  const order = runs.slice(1).map((_, i) => i + 1).sort((a, b) => gapBefore(a) - gapBefore(b));
  const closed = new Set(order.slice(0, runs.length - most));
  const merged: { first: number; count: number }[] = [];
  runs.forEach(({ first, count }, i) => {
    const before = merged.at(-1);
    if (before && closed.has(i)) before.count = first + count - before.first;
    else merged.push({ first, count });
  });
  return merged;
}
