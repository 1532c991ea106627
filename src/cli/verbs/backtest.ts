/** `psma backtest`: how good forecasts would have been, on a volume's history, a CSV file or a set of tasks. */
import type { Command } from "@commander-js/extra-typings";
import { formatDuration, parseDuration, PsmaError } from "../../core/mod.ts";
import type { BacktestTable, HistoryOrder } from "../parts.ts";
import { formatTable } from "../table.ts";
import { metricOf } from "./foresight.ts";
import { type Session, type Start, verb } from "../verb.ts";

export function backtestVerb(start: Start): Command {
  return verb("backtest", "Show how good forecasts would have been on the past", [
    "psma backtest data --horizon 24h",
    "psma backtest history.csv --value used_bytes",
    "psma backtest io.csv --metric write_rate --step 5m --json",
    "psma backtest --tasks tasks.csv --data sets --task cap_replay_1h",
  ])
    .argument("[source]", "a volume, or a CSV file with columns time, value and perhaps series")
    .option("--metric <metric>", "used, inodes, write_rate, or a metric's full name", "used")
    .option("--value <column>", "the file's column of values")
    .option("--horizon <duration>", "how far (default: 24h; for a file a tenth of its history)")
    .option("--step <duration>", "distance of points (default: as in the file, or 96 a horizon)")
    .option("--origins <count>", "forecasts per series", "8")
    .option("--tasks <file>", "tasks as CSV, one a line")
    .option("--data <dir>", "where the tasks' sets are")
    .option("--task <name...>", "only these tasks")
    .option("--forecasts <file>", "write the tasks' forecasts there and print no scores")
    .action((source, options) =>
      start(options, async (session) => {
        const { backtestTasks, backtestHistory } = session.parts;
        const watch = (task: string, done: number, all: number) =>
          session.live.draw(`${task}: ${done} of ${all} forecasts`);
        const { tasks, data, forecasts } = options;
        if ((source === undefined) === (tasks === undefined)) {
          throw new PsmaError("usage/backtest", "Cannot back-test: it takes a source or --tasks", {
            hint: "Name a volume, a CSV file, or a task file and its data.",
          });
        }
        if (source === undefined && data === undefined) {
          throw new PsmaError("usage/backtest", "Cannot back-test tasks: --data is missing");
        }
        const tables = tasks !== undefined && data !== undefined
          ? await backtestTasks(
            { tasks_file: tasks, data, only: options.task ?? [], forecasts: forecasts ?? null },
            watch,
          )
          : await backtestHistory(
            await historyOf(session, source ?? "", options),
            watch,
          );
        session.live.clear();
        session.answer(
          tables,
          () => forecasts === undefined ? formatTables(tables) : `Forecasts are in ${forecasts}.`,
        );
      })
    ) as never;
}

interface HistoryOptions {
  readonly metric: string;
  readonly value?: string | undefined;
  readonly horizon?: string | undefined;
  readonly step?: string | undefined;
  readonly origins: string;
}

async function historyOf(
  session: Session,
  source: string,
  options: HistoryOptions,
): Promise<HistoryOrder> {
  const origins = Number(options.origins);
  if (!Number.isInteger(origins) || origins < 1 || origins > 1000) {
    throw new PsmaError(
      "usage/origins",
      `Cannot back-test: --origins ${options.origins} is not a whole number from 1 to 1000`,
    );
  }
  const metric = metricOf(options.metric);
  const seconds = (text: string | undefined) =>
    text === undefined ? null : parseDuration(text) / 1000;
  const common = {
    metric,
    horizon_s: seconds(options.horizon),
    step_s: seconds(options.step),
    origins,
  };
  if (/\.csv(\.gz)?$|\//.test(source)) {
    return { ...common, history: { file: source, value: options.value ?? null } };
  }
  return { ...common, ...await askVolume(session, source, common) };
}

const VOLUME_HORIZON_S = 86_400;
const STEPS_PER_HORIZON = 96;
/** As much of a volume's history as forecasts train on, and some origins before. */
const VOLUME_POINTS = 3000;

/** The agent's roll-up of what a volume's history holds, as far back as forecasts can use it. */
async function askVolume(
  session: Session,
  volume: string,
  { metric, horizon_s, step_s }: Pick<HistoryOrder, "metric" | "horizon_s" | "step_s">,
): Promise<Pick<HistoryOrder, "history" | "horizon_s" | "step_s">> {
  const horizon = horizon_s ?? VOLUME_HORIZON_S;
  const step = Math.max(1, Math.round(step_s ?? horizon / STEPS_PER_HORIZON));
  const agent = await session.agent();
  const { points } = await agent.history(volume, {
    metric,
    from: new Date(session.clock.nowMs() - VOLUME_POINTS * step * 1000).toISOString(),
    step: `${step}s`,
  });
  return {
    history: {
      name: volume,
      points: points.map(({ at_ms, value }) => ({ at_s: at_ms / 1000, value })),
    },
    horizon_s: horizon,
    step_s: step,
  };
}

function formatTables(tables: readonly BacktestTable[]): string {
  return tables.map(formatOne).join("\n\n");
}

function formatOne({ task, methods, horizon_steps, step_s }: BacktestTable): string {
  const [first] = methods;
  const heading = `${task}: ${first?.series ?? 0} series, ${first?.forecasts ?? 0} forecasts of ` +
    `${horizon_steps} steps of ${formatDuration(step_s * 1000)}`;
  const right = (title: string) => ({ title, align: "right" as const });
  const columns = [
    { title: "METHOD" },
    ...["PINBALL/NAIVE", "INTERVAL/NAIVE", "MASE", "SMAPE", "IN 80%", "IN 95%", "MSIS", "MS"]
      .map(right),
  ];
  const rows = methods.map((one) => [
    one.method,
    number(one.relative_pinball),
    number(one.relative_interval),
    number(one.mase),
    number(one.smape),
    percent(one.coverage80),
    percent(one.coverage95),
    number(one.msis),
    one.fit_ms === null ? "" : one.fit_ms.toFixed(0),
  ]);
  return `${heading}\n${formatTable(columns, rows)}`;
}

function number(value: number): string {
  return value.toPrecision(3);
}

function percent(share: number): string {
  return `${(share * 100).toFixed(1)}%`;
}
