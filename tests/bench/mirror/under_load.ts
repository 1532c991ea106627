/** A whole mirror's life under an application: sync, readiness, a resync, the pivot, and what the application got. */
import type { Figure } from "../pairs.ts";
import {
  type Latencies,
  type LatencyLog,
  type LoadKind,
  now_ms,
  pass,
  startLoad,
  type Stretch,
  stretch,
} from "./load.ts";
import type { SideKind, SideOptions } from "./side.ts";

export interface UnderLoadOptions extends SideOptions {
  readonly load: LoadKind;
  /** How long the stretches last whose end nothing else decides. */
  readonly seconds: number;
  readonly size_bytes: number;
}

/** What a stretch is called in the results. */
export const PHASES = ["sync", "ready", "resync", "pivot", "after"] as const;
type Phase = typeof PHASES[number];

export interface LifeUnderLoad {
  /** At most READY_WITHIN_S. */
  readonly ready_s: number;
  /** At most LATER_WITHIN_S, as is the next. */
  readonly resync_s: number | undefined;
  /** From the order to the answer that it is done. */
  readonly switch_s: number | undefined;
  readonly before: Latencies;
  readonly phases: Readonly<Partial<Record<Phase, Latencies | undefined>>>;
}

/** Who has no complete target by then counts with this time, and neither resyncs nor switches. */
const READY_WITHIN_S = 120;
/** Who is not in step again, or has not switched, by then counts with this time, and goes on. */
const LATER_WITHIN_S = 20;
/** At 10,000 random writes a second this makes a tenth of the chunks of 1 GiB dirty. */
const PAUSE_MS = 170;
/** What a program that has just begun to serve does differently is over by then. */
const SETTLE_MS = 2000;
/** The pivot's stretch goes on for so long after the commit: what it held up completes in it. */
const AFTER_PIVOT_MS = 500;

export async function liveUnderLoad(
  kind: SideKind,
  options: UnderLoadOptions,
): Promise<LifeUnderLoad> {
  const { load: loadKind, seconds, size_bytes, directory } = options;
  await using side = await kind.start(options);
  await using load = await startLoad(side.uri, loadKind, size_bytes, directory);
  await pass(SETTLE_MS + seconds * 1000);
  const stretches: Partial<Record<Phase, Stretch>> = {};
  let switch_s: number | undefined;
  const began_ms = now_ms();
  const before = { from_ms: began_ms - seconds * 1000, to_ms: began_ms };
  await side.begin();
  const isReady = await side.ready(READY_WITHIN_S * 1000);
  stretches.sync = { from_ms: began_ms, to_ms: now_ms() };
  if (isReady) {
    stretches.ready = await stretch(() => pass(seconds * 1000));
    if (await side.pause()) {
      await pass(PAUSE_MS);
      stretches.resync = await stretch(async () => {
        await side.resume();
        await side.ready(LATER_WITHIN_S * 1000);
      });
    }
    const order_ms = now_ms();
    const isSwitched = await side.switchOver(LATER_WITHIN_S * 1000);
    switch_s = (now_ms() - order_ms) / 1000;
    await pass(AFTER_PIVOT_MS);
    stretches.pivot = { from_ms: order_ms, to_ms: now_ms() };
    if (isSwitched) stretches.after = await stretch(() => pass(seconds * 1000));
  }
  return { ...judge(await load.end(), before, stretches), switch_s };
}

function judge(
  log: LatencyLog,
  before: Stretch,
  stretches: Readonly<Partial<Record<Phase, Stretch>>>,
): Omit<LifeUnderLoad, "switch_s"> {
  const baseline = log.in(before);
  if (baseline === undefined) throw new Error("Cannot measure: the load had not begun");
  const phases = Object.fromEntries(
    PHASES.map((phase) => [phase, stretches[phase] && log.in(stretches[phase])]),
  );
  return {
    ready_s: lengthOf(stretches.sync) ?? NaN,
    resync_s: lengthOf(stretches.resync),
    before: baseline,
    phases,
  };
}

function lengthOf(stretch: Stretch | undefined): number | undefined {
  return stretch && (stretch.to_ms - stretch.from_ms) / 1000;
}

/** Of every phase what was kept of the requests before, and its latencies. */
export function figuresUnderLoad(work: string): Figure<LifeUnderLoad>[] {
  const latencies = (phase: string, of: (life: LifeUnderLoad) => Latencies | undefined) => {
    const one = (name: string, figure: (value: Latencies) => number): Figure<LifeUnderLoad> => ({
      work: `${work}, ${phase}: ${name}`,
      unit: "µs",
      better: "lower",
      of: (life) => {
        const value = of(life);
        return value && figure(value);
      },
    });
    return [
      one("p99", ({ p99_us }) => p99_us),
      one("p99.9", ({ p999_us }) => p999_us),
      one("longest", ({ max_us }) => max_us),
    ];
  };
  const seconds = { unit: "s", better: "lower" } as const;
  return [
    { work: `${work}: time to ready`, ...seconds, of: ({ ready_s }) => ready_s },
    { work: `${work}: resync`, ...seconds, of: ({ resync_s }) => resync_s },
    { work: `${work}: switch`, ...seconds, of: ({ switch_s }) => switch_s },
    {
      work: `${work}, before`,
      unit: "IOPS",
      better: "higher",
      of: ({ before }) => before.operations_per_s,
    },
    ...latencies("before", ({ before }) => before),
    ...PHASES.flatMap((phase): Figure<LifeUnderLoad>[] => [
      {
        work: `${work}, ${phase}: IOPS kept`,
        unit: "%",
        better: "higher",
        of: ({ before, phases }) => {
          const kept = phases[phase]?.operations_per_s;
          return kept && kept / before.operations_per_s * 100;
        },
      },
      {
        work: `${work}, ${phase}: p99 of the p99 before`,
        unit: "×",
        better: "lower",
        of: ({ before, phases }) => {
          const p99_us = phases[phase]?.p99_us;
          return p99_us && p99_us / before.p99_us;
        },
      },
      ...latencies(phase, ({ phases }) => phases[phase]),
    ]),
  ];
}
