/**
 * Side-by-side measuring on a machine that is not quiet: ours and its peers take turns (A B C, B C A, …), so
 * that what slows one round down slows all of it, and the medians of the rounds are compared.
 */
import type { Requirements } from "../support/requires.ts";

/** What a file `tests/bench/NAME.ts` exports as `bench`. */
export interface Bench {
  /** One sentence for the list of benches. */
  readonly about: string;
  readonly needs: Requirements;
  /** What `--peer` may name; absent where there is no choice. */
  readonly peers?: readonly string[];
  /** What `--storage` may name. */
  readonly storages?: readonly string[];
  /** Measures one work after another. Sets up and takes down what it needs by itself. */
  run(options: BenchOptions): AsyncIterable<BenchResult>;
  /** Puts a whole run's results on the page of figures, for `--write`. @returns the page's path. */
  write?(results: readonly BenchResult[], options: BenchOptions): Promise<string>;
}

export interface BenchOptions {
  /** Rounds per work, each one run of ours and one of every peer. */
  readonly rounds: number;
  /** Seconds that one run of one side should measure for. */
  readonly seconds: number;
  /** Bytes of each file that is served, where the bench has no size of its own; absent for its default. */
  readonly size_bytes?: number;
  /** Only works that match; absent for all. */
  readonly work?: RegExp;
  /** Only these peers, and only these storages; absent for all. */
  readonly peers?: readonly string[];
  readonly storages?: readonly string[];
  /** Aborted when the person interrupts the run. */
  readonly signal?: AbortSignal;
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
  readonly better: Better;
  /** ours / peer. */
  readonly ratio: number;
  /** (largest - smallest) / median of the rounds' own ratios: how far rounds disagree. */
  readonly spread: number;
  readonly rounds: number;
}

export type Better = "higher" | "lower";

/** One of the things that a run is measured by, reported as a work of its own. */
export interface Figure<Sample> {
  readonly work: string;
  readonly unit: string;
  readonly better: Better;
  /** Takes it from what a run gave: a positive number in `unit`, or undefined where this run had no such thing. */
  of(sample: Sample): number | undefined;
}

/** Who takes turns. */
export interface Contestant<Sample> {
  readonly name: string;
  run(): Promise<Sample>;
}

export interface Turns<Sample> {
  readonly figures: readonly Figure<Sample>[];
  readonly rounds: number;
  readonly ours: Contestant<Sample>;
  readonly peers: readonly Contestant<Sample>[];
  /** Whether a first, unmeasured run of everyone makes a difference; default true. */
  readonly warmUp?: boolean;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Runs everyone once to warm up, unmeasured, then in turns; each round begins with another one.
 * @returns by figure, then by peer; without those that one of the two never gave. @throws {Error} for a figure that is not positive, and when interrupted.
 */
export async function measureTurns<Sample>(turns: Turns<Sample>): Promise<BenchResult[]> {
  const { figures, rounds, ours, peers, warmUp = true, signal } = turns;
  const all = [ours, ...peers];
  if (!(rounds >= 1)) throw new Error(`Cannot measure: ${rounds} is not a number of rounds`);
  const samples = new Map(all.map((contestant) => [contestant, [] as Sample[]]));
  const run = async (contestant: Contestant<Sample>) => {
    signal?.throwIfAborted();
    const sample = await contestant.run();
    for (const { work, unit, of } of figures) {
      const figure = of(sample);
      if (figure === undefined || figure > 0 && Number.isFinite(figure)) continue;
      throw new Error(`Cannot measure ${work}: ${contestant.name} gave ${figure} ${unit}`);
    }
    return sample;
  };
  if (warmUp) { for (const contestant of all) await run(contestant); }
  for (let round = 0; round < rounds; round++) {
    const first = round % all.length;
    for (const contestant of [...all.slice(first), ...all.slice(0, first)]) {
      samples.get(contestant)?.push(await run(contestant));
    }
  }
  return figures.flatMap((figure) => {
    const series = (contestant: Contestant<Sample>) =>
      (samples.get(contestant) ?? []).map((sample) => figure.of(sample));
    return peers.map((peer) => compare(figure, series(ours), series(peer), peer.name))
      .filter((result) => result.rounds > 0);
  });
}

function compare(
  { work, unit, better }: Omit<Figure<never>, "of">,
  ours: readonly (number | undefined)[],
  peer: readonly (number | undefined)[],
  peer_name: string,
): BenchResult {
  const rounds = ours.flatMap((figure, round) => {
    const other = peer[round];
    return figure === undefined || other === undefined ? [] : [{ figure, other }];
  });
  const ratios = rounds.map(({ figure, other }) => figure / other);
  const ours_median = median(rounds.map(({ figure }) => figure));
  const peer_median = median(rounds.map(({ other }) => other));
  return {
    work,
    ours: ours_median,
    peer: peer_median,
    peer_name,
    unit,
    better,
    ratio: ours_median / peer_median,
    spread: (Math.max(...ratios) - Math.min(...ratios)) / median(ratios),
    rounds: rounds.length,
  };
}

/** The middle figure, or the mean of the two in the middle. NaN for none. */
export function median(figures: readonly number[]): number {
  const sorted = [...figures].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? NaN) + upper) / 2;
}
