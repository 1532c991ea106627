/** Real series, forecast through the child: not worse than naive, and intervals that hold. */
import { ok } from "node:assert/strict";
import { silentLog } from "../../../src/core/mod.ts";
import { type Forecaster, openForecaster } from "../../../src/forecast/mod.ts";
import { dataDir, requires } from "../../support/requires.ts";
import { tempDir } from "../../support/temp.ts";

interface Task {
  readonly file: string;
  readonly value: string;
  readonly step_s: number;
  readonly kind: "level" | "rate";
  readonly seasons: readonly number[];
  readonly horizon: number;
  readonly history: number;
  readonly series: number;
  /** Forecasts per series, from the middle to the last possible origin. */
  readonly origins: number;
}

const TASKS: readonly Task[] = [
  {
    file: "cap_lustre_15min/ost_15min.csv.gz",
    value: "used_bytes",
    step_s: 900,
    kind: "level",
    seasons: [],
    horizon: 16,
    history: 76,
    series: 14,
    origins: 3,
  },
  {
    file: "cap_replay/replay_1h.csv.gz",
    value: "used_bytes",
    step_s: 3600,
    kind: "level",
    seasons: [24, 168],
    horizon: 168,
    history: 1008,
    series: 4,
    origins: 1,
  },
  {
    file: "io_bitbrains_1h/io_1h.csv.gz",
    value: "kbps",
    step_s: 3600,
    kind: "rate",
    seasons: [24, 168],
    horizon: 48,
    history: 672,
    series: 4,
    origins: 1,
  },
];

/** Relative to naive, as a geometric mean over series; a few per cent above one would be no better than guessing. */
const RELATIVE_LOSS_MAX = 1.05;

for (const task of TASKS) {
  Deno.test({
    name: `${task.file}: pinball loss against naive, and coverage`,
    ...requires({ data: task.file }),
    fn: async () => {
      using temp = tempDir();
      const forecaster = await openForecaster({ dir: temp.path, log: silentLog });
      try {
        const scores = [];
        const all = await readSeries(task);
        // Evenly spaced: neighbours in a file belong to one machine and fare alike.
        for (let i = 0; i < task.series; i++) {
          const series = all[Math.floor(i * all.length / task.series)] ?? [];
          scores.push(await score(forecaster, task, series));
        }
        const relative = Math.exp(mean(scores.map((s) => Math.log(s.relative_loss))));
        const covered = mean(scores.map((s) => s.covered));
        ok(relative <= RELATIVE_LOSS_MAX, `loss is ${relative} times that of naive`);
        ok(covered > 0.5, `80 % intervals cover ${covered}`);
      } finally {
        await forecaster.close();
      }
    },
  });
}

/** Scores of one series: means over its origins. */
async function score(forecaster: Forecaster, task: Task, series: readonly number[]) {
  const last = series.length - task.horizon;
  const first = Math.max(48, Math.min(last, Math.round(series.length / 2)));
  const scores = [];
  for (let i = 0; i < task.origins; i++) {
    const origin = Math.round(last - (last - first) * i / Math.max(1, task.origins - 1));
    scores.push(await scoreOrigin(forecaster, task, series, origin));
  }
  return {
    relative_loss: mean(scores.map((s) => s.ours)) / mean(scores.map((s) => s.naive)),
    covered: mean(scores.map((s) => s.covered)),
  };
}

/** Forecasts the points after `origin`; naive's intervals are those of a random walk. */
async function scoreOrigin(
  forecaster: Forecaster,
  task: Task,
  series: readonly number[],
  origin: number,
) {
  const past = series.slice(Math.max(0, origin - task.history), origin);
  const future = series.slice(origin, origin + task.horizon);
  const answer = await forecaster.forecastSeries({
    values: past,
    step_ms: task.step_s * 1000,
    horizon_steps: task.horizon,
    levels: [0.1, 0.5, 0.9],
    seasons: task.seasons,
    kind: task.kind,
  });
  const last = past.at(-1) ?? 0;
  const changes = past.slice(1).map((value, i) => value - (past[i] ?? 0));
  const sigma = Math.sqrt(mean(changes.map((d) => d * d)));
  let ours = 0, naive = 0, covered = 0;
  future.forEach((actual, index) => {
    const spread = 1.2816 * sigma * Math.sqrt(index + 1);
    const [low = NaN, middle = NaN, high = NaN] = answer.steps[index] ?? [];
    ours += pinballs(actual, [low, middle, high]);
    naive += pinballs(actual, [Math.max(0, last - spread), last, last + spread]);
    if (actual >= low && actual <= high) covered++;
  });
  // The floor of the protocol: a series that hardly moves must not decide the mean.
  const floor = 3 * task.horizon * (1e-3 * mean(changes.map(Math.abs)) + 1e-6 * mean(past));
  return {
    ours: ours + floor,
    naive: naive + floor,
    covered: covered / task.horizon,
  };
}

function pinballs(actual: number, quantiles: readonly [number, number, number]): number {
  return [0.1, 0.5, 0.9].reduce((sum, level, index) => {
    const miss = actual - (quantiles[index] ?? NaN);
    return sum + Math.max(level * miss, (level - 1) * miss);
  }, 0);
}

/** Every series that is long enough and moves, rolled up to the task's step with gaps filled by the last value. */
async function readSeries(task: Task): Promise<number[][]> {
  const file = await Deno.open(`${dataDir}/${task.file}`);
  const text = await new Response(
    file.readable.pipeThrough(new DecompressionStream("gzip")),
  ).text();
  const [head = "", ...lines] = text.trim().split("\n");
  const columns = head.split(",");
  const slots = new Map<string, Map<number, number>>();
  for (const line of lines) {
    const cells = line.split(",");
    const name = cells[0] ?? "";
    const slot = Math.floor(Number(cells[columns.indexOf("t")]) / task.step_s);
    const series = slots.get(name) ?? new Map<number, number>();
    slots.set(name, series.set(slot, Number(cells[columns.indexOf(task.value)])));
  }
  return [...slots.values()].map(fillGaps).filter((values) =>
    values.length >= task.horizon + task.history / 2 &&
    new Set(values.slice(0, -task.horizon)).size > 1
  );
}

function fillGaps(slots: ReadonlyMap<number, number>): number[] {
  const [first, last] = [Math.min(...slots.keys()), Math.max(...slots.keys())];
  let value = slots.get(first) ?? 0;
  return Array.from({ length: last - first + 1 }, (_, i) => value = slots.get(first + i) ?? value);
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
