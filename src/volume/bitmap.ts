/** One bit per chunk or region of a volume, in words of 32, and runs of those that are set. */
import type { RegionRun } from "../codec/mod.ts";

/** Hot path. */
export function hasBit(words: Uint32Array, index: number): boolean {
  return ((words[index >>> 5] as number) & (1 << (index & 31))) !== 0;
}

/** Hot path. */
export function setBit(words: Uint32Array, index: number): void {
  words[index >>> 5] = (words[index >>> 5] as number) | (1 << (index & 31));
}

/** Hot path. */
export function clearBit(words: Uint32Array, index: number): void {
  words[index >>> 5] = (words[index >>> 5] as number) & ~(1 << (index & 31));
}

/** Sets the first `count`. */
export function setFirst(words: Uint32Array, count: number): void {
  words.fill(0xffffffff, 0, count >>> 5);
  if (count % 32 > 0) words[count >>> 5] = 2 ** (count % 32) - 1;
}

/** The first that is set in [from, end), or -1. */
export function nextBit(words: Uint32Array, from: number, end: number): number {
  if (from >= end) return -1;
  let word = from >>> 5;
  let bits = (words[word] as number) & (-1 << (from & 31));
  const endWord = Math.ceil(end / 32);
  while (bits === 0) {
    if (++word >= endWord) return -1;
    bits = words[word] as number;
  }
  return word * 32 + (31 - Math.clz32(bits & -bits));
}

export function countBits(words: Uint32Array): number {
  let count = 0;
  for (let i = 0; i < words.length; i++) {
    for (let bits = words[i] as number; bits !== 0; bits &= bits - 1) count++;
  }
  return count;
}

export function setRun(words: Uint32Array, { first, count }: RegionRun): void {
  for (let index = first; index < first + count; index++) setBit(words, index);
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
  const end = words.length * 32;
  for (let first = nextBit(words, 0, end); first >= 0;) {
    let after = first + 1;
    while (after < end && hasBit(words, after)) after++;
    runs.push({ first, count: after - first });
    first = nextBit(words, after, end);
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
