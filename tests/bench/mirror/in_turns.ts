/**
 * What copying costs an application on a machine that others use as well: one mirror, one load, and the mirror
 * copies and pauses in turns for as long as there is something to copy. Other people's work disturbs both kinds of
 * stretches alike, as it cannot where "before" was measured once.
 */
import { type BenchResult, median } from "../pairs.ts";
import {
  type LatencyLog,
  type LoadKind,
  pass,
  quantile,
  startLoad,
  type Stretch,
  stretch,
} from "./load.ts";
import type { SideKind, SideOptions } from "./side.ts";

export interface InTurnsOptions extends SideOptions {
  readonly load: LoadKind;
  readonly size_bytes: number;
  /** How long each stretch lasts. */
  readonly seconds: number;
  /** How many of each kind there are at most. */
  readonly pairs: number;
  readonly signal?: AbortSignal | undefined;
}

/** What begins or ends copying is over by then. */
const SETTLE_MS = 500;
/** What a program that has just begun to serve does differently, too. */
const BEGIN_MS = 2000;

/** @param work the results' name. @throws {Error} when the mirror was ready before a single stretch was over. */
export async function copyInTurns(
  work: string,
  kind: SideKind,
  options: InTurnsOptions,
): Promise<BenchResult[]> {
  await using side = await kind.start(options);
  await using load = await startLoad(
    side.uri,
    options.load,
    options.size_bytes,
    options.directory,
  );
  await pass(BEGIN_MS);
  const copying: Stretch[] = [], paused: Stretch[] = [];
  for (let pair = 0; pair < options.pairs; pair++) {
    options.signal?.throwIfAborted();
    const quiet = await settled(options.seconds);
    if (pair === 0) await side.begin();
    else await side.resume();
    const busy = await settled(options.seconds);
    if (await side.ready(0)) break;
    await side.pause();
    paused.push(quiet);
    copying.push(busy);
  }
  if (copying.length === 0) throw new Error("Cannot measure: the mirror was ready too soon");
  return compare(work, await load.end(), copying, paused);
}

async function settled(seconds: number): Promise<Stretch> {
  await pass(SETTLE_MS);
  return await stretch(() => pass(seconds * 1000));
}

/** Of all stretches of a kind together; the spread is that of the pairs. */
function compare(
  work: string,
  log: LatencyLog,
  copying: readonly Stretch[],
  paused: readonly Stretch[],
): BenchResult[] {
  const figure = (
    name: string,
    unit: string,
    better: BenchResult["better"],
    of: (stretches: readonly Stretch[]) => number,
  ): BenchResult => {
    const ours = of(copying), peer = of(paused);
    const ratios = copying.map((one, index) => of([one]) / of(paused.slice(index, index + 1)));
    return {
      work: `${work}: ${name}`,
      ours,
      peer,
      peer_name: "the same mirror, paused",
      unit,
      better,
      ratio: ours / peer,
      spread: (Math.max(...ratios) - Math.min(...ratios)) / median(ratios),
      rounds: copying.length,
    };
  };
  const latency = (level: number) => (stretches: readonly Stretch[]) =>
    quantile(
      Float64Array.from(stretches.flatMap((one) => [...log.sorted(one)])).sort(),
      level,
    );
  const iops = (stretches: readonly Stretch[]) =>
    stretches.reduce((sum, one) => sum + log.sorted(one).length, 0) /
    stretches.reduce((sum, { from_ms, to_ms }) => sum + to_ms - from_ms, 0) * 1000;
  return [
    figure("IOPS", "IOPS", "higher", iops),
    figure("median", "µs", "lower", latency(0.5)),
    figure("p99", "µs", "lower", latency(0.99)),
    figure("p99.9", "µs", "lower", latency(0.999)),
  ];
}
