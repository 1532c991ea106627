/** `psma forecast` and `psma plan`: what is to come, and what the agent would do about it. */
import type { Command } from "@commander-js/extra-typings";
import type { Forecast, Plan } from "../../api/client.ts";
import { formatDuration, formatSize, PsmaError } from "../../core/mod.ts";
import { bandChart } from "../plot.ts";
import { formatPairs, formatTable } from "../table.ts";
import { type Session, type Start, verb } from "../verb.ts";

const ROWS_MAX = 24;
const CHART_LINES = 14;
const METRICS: Readonly<Record<string, string>> = {
  used: "used_bytes",
  inodes: "inodes_used",
  write_rate: "write_bytes_per_s",
};

export function forecastVerb(start: Start): Command {
  return verb("forecast", "Show the forecast of a metric", [
    "psma forecast data",
    "psma forecast data --metric inodes --horizon 7d",
    "psma forecast data --levels 0.1,0.5,0.9 --json",
    "psma forecast data --plot",
  ])
    .argument("<volume>")
    .option("--metric <metric>", "used, inodes, write_rate, or a metric's full name", "used")
    .option("--horizon <duration>", "how far, like 24h")
    .option("--levels <levels>", "quantile levels, like 0.1,0.5,0.9")
    .option("--plot", "draw it")
    .action((volume, options) =>
      start(options, async (session) => {
        const forecast = await (await session.agent()).forecast(volume, {
          metric: metricOf(options.metric),
          ...(options.horizon === undefined ? {} : { horizon: options.horizon }),
          ...(options.levels === undefined ? {} : { levels: options.levels }),
        });
        session.answer(
          forecast,
          () => options.plot ? plot(session, forecast) : formatForecast(session, forecast),
        );
      })
    ) as never;
}

export function planVerb(start: Start): Command {
  return verb("plan", "Show what the agent would do now, and why; changes nothing", [
    "psma plan data",
    "psma plan --json",
  ])
    .argument("[volume]", "only this one")
    .action((volume, options) => start(options, (session) => showPlans(session, volume))) as never;
}

/** A metric's full name, from the short one that people type. */
export function metricOf(word: string): string {
  return METRICS[word] ?? word;
}

async function showPlans(session: Session, volume: string | undefined): Promise<void> {
  const agent = await session.agent();
  if (volume !== undefined) {
    const plan = await agent.plan(volume);
    return session.answer(plan, () => formatPlan(session, plan));
  }
  const volumes = await agent.volumes();
  const plans = await Promise.all(volumes.map(({ name }) => agent.plan(name)));
  session.answer(
    plans,
    () =>
      plans.length === 0
        ? "No volumes."
        : plans.map((plan) => formatPlan(session, plan)).join("\n\n"),
  );
}

function formatPlan({ paint }: Session, plan: Plan): string {
  const { volume, action, because, numbers, target_size_bytes } = plan;
  const target = target_size_bytes === null ? "" : ` to ${formatSize(target_size_bytes)}`;
  const rows = Object.entries(numbers).map(([name, value]): [string, string] => [
    `  ${name}`,
    value === null ? "unknown" : formatNumber(name, value),
  ]);
  return [
    `${paint("bold", volume)}: ${paint("cyan", action)}${target}`,
    ...because.map((reason) => `  ${reason}`),
    ...(rows.length === 0 ? [] : ["", formatPairs(rows)]),
  ].join("\n");
}

/** Prints a number by the unit that its name ends with. */
function formatNumber(name: string, value: number): string {
  if (name.endsWith("_bytes_per_s")) return `${formatSize(value)}/s`;
  if (/(^|_)bytes$/.test(name)) return formatSize(value);
  if (name.endsWith("_ms")) return formatDuration(value);
  if (name.endsWith("_s")) return formatDuration(value * 1000);
  return Number.isInteger(value) ? String(value) : value.toPrecision(3);
}

function formatForecast({ paint, clock }: Session, forecast: Forecast): string {
  const { metric, steps, levels, origin_ms } = forecast;
  const stride = Math.max(1, Math.ceil(steps.length / ROWS_MAX));
  const rows = steps.filter((_, at) => (at + 1) % stride === 0).map(({ at_ms, values }) => [
    `+${formatDuration(at_ms - origin_ms)}`,
    ...values.map((value) => formatNumber(metric, value)),
  ]);
  const table = formatTable([
    { title: "AHEAD", align: "right" },
    ...levels.map((level) => ({ title: formatLevel(level), align: "right" as const })),
  ], rows);
  const age = formatDuration(Math.max(0, clock.nowMs() - origin_ms));
  return `${
    paint("bold", `${forecast.volume} ${metric}`)
  }, from ${forecast.history_points} points, ` +
    `newest ${age} old\n\n${table}\n\n${formatQuality(forecast)}`;
}

function formatLevel(level: number): string {
  return `${Number((level * 100).toFixed(2))}%`;
}

function formatQuality({ model, backtest, time_to_limit, origin_ms }: Forecast): string {
  const names = model.map(({ name, weight }) => `${name} ${Math.round(weight * 100)}%`).join(", ");
  const lines = [`model     ${names}`];
  if (backtest.coverage80 !== null) {
    lines.push(
      `backtest  ${Math.round(backtest.coverage80 * 100)}% of what came lay in the 80% interval ` +
        `(${backtest.windows} windows)`,
    );
  }
  if (time_to_limit !== undefined) {
    const median = time_to_limit.by_level.find(({ level }) => level === 0.5)?.at_ms ?? null;
    const when = median === null
      ? "beyond the horizon"
      : `in ${formatDuration(median - origin_ms)}`;
    lines.push(
      `limit     reached ${when} (median); ` +
        `${Math.round(time_to_limit.probability_within_horizon * 100)}% likely within the horizon`,
    );
  }
  return lines.join("\n");
}

function plot(session: Session, forecast: Forecast): string {
  const { levels, steps, metric, time_to_limit, horizon_ms } = forecast;
  const middle = levels.indexOf(0.5);
  if (middle < 0 || levels.length < 3) {
    throw new PsmaError(
      "usage/levels",
      "Cannot draw the forecast: it needs the level 0.5 and one to each side",
    );
  }
  const chart = bandChart(
    steps.map(({ values }) => ({
      low: values[0] ?? 0,
      middle: values[middle] ?? 0,
      high: values.at(-1) ?? 0,
    })),
    {
      width: Math.min(session.stdout.columns(), 100),
      height: CHART_LINES,
      format: (value) => formatNumber(metric, value),
      ...(time_to_limit === undefined ? {} : { limit: time_to_limit.limit }),
    },
  );
  const band = `${formatLevel(levels[0] ?? 0)} to ${formatLevel(levels.at(-1) ?? 1)}`;
  return `${forecast.volume} ${metric}, the next ${formatDuration(horizon_ms)}: ` +
    `● median, ░ ${band}${time_to_limit === undefined ? "" : ", ─ limit"}\n\n${chart}`;
}
