/**
 * Side-by-side measuring on a machine that is not quiet: ours and the peer take turns (A B A B …), so
 * that what slows one round down slows both, and the medians of the rounds are compared.
 */
import type { Requirements } from "../support/requires.ts";

/** What a file `tests/bench/NAME.ts` exports as `bench`. */
export interface Bench {
  /** One sentence for the list of benches. */
  readonly about: string;
  readonly needs: Requirements;
  /** Measures one work after another. Sets up and takes down what it needs by itself. */
  run(options: BenchOptions): AsyncIterable<BenchResult>;
}

export interface BenchOptions {
  /** Rounds per work, each one run of ours and one of the peer. */
  readonly rounds: number;
  /** Seconds that one run of one side should measure for. */
  readonly seconds: number;
}

/** One line of `deno task bench NAME --json`, without the bench's name. */
export interface BenchResult {
  /** What was done: `4k randread QD32`. */
  readonly work: string;
  /** Medians over the rounds, in `unit`. */
  readonly ours: number;
  readonly peer: number;
  readonly peer_name: string;
  readonly unit: string;
  readonly better: "higher" | "lower";
  /** ours / peer. */
  readonly ratio: number;
  /** (largest - smallest) / median of the rounds' own ratios: how far rounds disagree. */
  readonly spread: number;
  readonly rounds: number;
}

export interface Pair {
  readonly work: string;
  readonly peer_name: string;
  readonly unit: string;
  readonly better: "higher" | "lower";
  readonly rounds: number;
  /** One run of each side: a positive number in `unit`. */
  readonly ours: () => number | Promise<number>;
  readonly peer: () => number | Promise<number>;
}

/** Runs both sides once to warm up, unmeasured, then in turns. @throws {Error} for a figure that is not positive. */
export async function measurePair(pair: Pair): Promise<BenchResult> {
  const { work, peer_name, unit, better, rounds } = pair;
  if (!(rounds >= 1)) {
    throw new Error(`Cannot measure ${work}: ${rounds} is not a number of rounds`);
  }
  const run = async (side: "ours" | "peer") => {
    const figure = await pair[side]();
    if (figure > 0 && Number.isFinite(figure)) return figure;
    throw new Error(`Cannot measure ${work}: ${side} gave ${figure} ${unit}`);
  };
  await run("ours");
  await run("peer");
  const ours: number[] = [];
  const peer: number[] = [];
  for (let round = 0; round < rounds; round++) {
    ours.push(await run("ours"));
    peer.push(await run("peer"));
  }
  const ratios = ours.map((figure, round) => figure / (peer[round] ?? NaN));
  return {
    work,
    ours: median(ours),
    peer: median(peer),
    peer_name,
    unit,
    better,
    ratio: median(ours) / median(peer),
    spread: (Math.max(...ratios) - Math.min(...ratios)) / median(ratios),
    rounds,
  };
}

/** The middle figure, or the mean of the two in the middle. NaN for none. */
export function median(figures: readonly number[]): number {
  const sorted = [...figures].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? NaN) + upper) / 2;
}
