/** The agent's metrics, by Prometheus's naming: base units (bytes, seconds), `_total` for what only rises. */
import type { VolumeStatus } from "../dataplane/mod.ts";
import { backendFamilies } from "./backend_metrics.ts";
import { type CounterPage, latencyBucketLimit, type Pressure } from "../monitor/mod.ts";
import type { MetricFamily, VolumeState } from "./views.ts";
import type { VolumeUnit } from "./volume_unit.ts";

const MICROS = 1e6;
const STATES: readonly VolumeState[] = ["attached", "detached", "failed"];
/** One bucket an octave is told; the page keeps eight. */
const BUCKETS_PER_OCTAVE = 8;

export interface MetricsInput {
  readonly version: string;
  readonly ready: boolean;
  readonly units: readonly {
    readonly unit: VolumeUnit;
    readonly status: VolumeStatus | undefined;
  }[];
  readonly pressure: Pressure | undefined;
  readonly last_event_id: number;
  readonly dropped_samples: number;
}

type Sample = MetricFamily["samples"][number];
type Kind = MetricFamily["type"];

/** All families, in a fixed order; one sample a volume where there is something to say. */
export function metricFamilies(input: MetricsInput): MetricFamily[] {
  const { units } = input;
  const one = (name: string, help: string, value: number, labels = {}): MetricFamily => ({
    name,
    help,
    type: kindOf(name),
    samples: [{ labels, value }],
  });
  const each = (
    name: string,
    help: string,
    value: (unit: VolumeUnit, status: VolumeStatus | undefined) => number | null | undefined,
  ): MetricFamily => ({
    name,
    help,
    type: kindOf(name),
    samples: units.flatMap(({ unit, status }) => {
      const now = value(unit, status);
      return now === null || now === undefined || !Number.isFinite(now)
        ? []
        : [{ labels: { volume: unit.name }, value: now }];
    }),
  });
  return [
    one("psma_build_info", "The version that runs, as a label.", 1, { version: input.version }),
    one("psma_ready", "1 when every volume that should be served is.", input.ready ? 1 : 0),
    one("psma_events_total", "Events so far, over restarts.", input.last_event_id),
    one("psma_samples_dropped_total", "Samples that were not kept.", input.dropped_samples),
    ...pressureFamilies(input.pressure, one),
    stateFamily(units.map(({ unit }) => unit)),
    each("psma_volume_size_bytes", "Size of the block device.", (_, status) => status?.size_bytes),
    each("psma_volume_max_size_bytes", "Cap of the size.", (unit) => unit.config.max_size_bytes),
    each(
      "psma_volume_used_bytes",
      "What the forecast watches.",
      (unit) => unit.observation?.used_bytes,
    ),
    each(
      "psma_volume_connected",
      "1 while the store that holds the volume answers.",
      (_, status) => status ? Number(status.connected) : undefined,
    ),
    each("psma_volume_epoch", "Fencing number.", (_, status) => status?.epoch),
    each(
      "psma_filesystem_size_bytes",
      "Size of the mounted file system.",
      (unit) => unit.observation?.filesystem?.size_bytes,
    ),
    each(
      "psma_filesystem_inodes",
      "Inodes of the mounted file system.",
      (unit) => unit.observation?.filesystem?.inodes_total,
    ),
    each(
      "psma_filesystem_inodes_used",
      "Inodes in use.",
      (unit) => unit.observation?.filesystem?.inodes_used,
    ),
    ...counterFamilies(each),
    latencyFamily(units.map(({ unit }) => unit)),
    ...backendFamilies(units.map(({ unit: { name }, status }) => ({ name, status }))),
    ...mirrorFamilies(each),
    ...cutoverFamilies(each),
    ...planFamilies(each),
  ];
}

type Each = (
  name: string,
  help: string,
  value: (unit: VolumeUnit, status: VolumeStatus | undefined) => number | null | undefined,
) => MetricFamily;

function counterFamilies(each: Each): MetricFamily[] {
  const counter = (
    name: string,
    help: string,
    value: (counters: CounterPage) => number,
  ) =>
    each(`psma_volume_${name}`, help, (unit) => {
      const counters = unit.observation?.counters;
      return counters ? value(counters) : undefined;
    });
  return [
    counter("reads_total", "Read requests.", (one) => one.reads),
    counter("writes_total", "Write requests.", (one) => one.writes),
    counter("flushes_total", "Flush requests.", (one) => one.flushes),
    counter("trims_total", "Trim requests.", (one) => one.trims),
    counter("read_bytes_total", "Bytes read.", (one) => one.read_bytes),
    counter("written_bytes_total", "Bytes written.", (one) => one.write_bytes),
    counter("errors_total", "Requests that failed.", (one) => one.errors),
    counter("requests_in_flight", "Requests that are not answered yet.", (one) => one.in_flight),
  ];
}

function mirrorFamilies(each: Each): MetricFamily[] {
  return [
    each(
      "psma_mirror_copied_bytes",
      "Bytes copied by this mirror.",
      (_, status) => status?.mirror?.copied_bytes,
    ),
    each(
      "psma_mirror_dirty_bytes",
      "Bytes that the target lacks.",
      (_, status) => status?.mirror?.dirty_bytes,
    ),
    each(
      "psma_mirror_rate_bytes_per_second",
      "The copier's rate.",
      (_, status) => status?.mirror?.rate_bytes_per_s,
    ),
    each(
      "psma_mirror_done_ratio",
      "Share of the round under way that is done; 1 between rounds.",
      (_, status) => status?.mirror ? status.mirror.percent / 100 : undefined,
    ),
    each(
      "psma_mirror_dirty_rate_bytes_per_second",
      "Bytes of chunks that become dirty.",
      (_, status) => status?.mirror?.dirty_rate_bytes_per_s,
    ),
    each(
      "psma_mirror_eta_seconds",
      "Time until nothing is dirty; absent when it does not converge.",
      (_, status) => status?.mirror?.eta_s,
    ),
    each(
      "psma_mirror_eta_low_seconds",
      "Lower bound of the 80% interval of that time.",
      (_, status) => status?.mirror?.eta_low_s,
    ),
    each(
      "psma_mirror_eta_high_seconds",
      "Upper bound of the 80% interval of that time; absent where there is none.",
      (_, status) => status?.mirror?.eta_high_s,
    ),
    each(
      "psma_mirror_rpo_seconds",
      "How old a write may become before the mirror has it.",
      (unit, status) => status?.mirror ? seconds(unit.config.mirror.rpo_ms) : undefined,
    ),
    each(
      "psma_mirror_ceiling_bytes_per_second",
      "The copier's ceiling now; absent where there is none.",
      (_, status) => status?.mirror?.scheduled.ceiling_bytes_per_s,
    ),
    each(
      "psma_mirror_next_round_timestamp_seconds",
      "When the next round is due; absent while one is under way.",
      (_, status) => {
        const at = status?.mirror?.scheduled.next_round_at;
        return at ? Date.parse(at) / 1000 : undefined;
      },
    ),
    each(
      "psma_mirror_lag_seconds",
      "Age of the oldest write that the target lacks.",
      (_, status) => seconds(status?.mirror?.lag_ms),
    ),
    each(
      "psma_mirror_write_through",
      "1 while writes go to both sides.",
      (_, status) => status?.mirror ? Number(status.mirror.write_through) : undefined,
    ),
    each(
      "psma_mirror_digests_checked",
      "Extents of this mirror that were compared.",
      (_, status) => status?.mirror?.digests.checked,
    ),
    each(
      "psma_mirror_digest_mismatches",
      "Extents that differed and were copied again.",
      (_, status) => status?.mirror?.digests.mismatched,
    ),
  ];
}

function cutoverFamilies(each: Each): MetricFamily[] {
  return [
    each(
      "psma_cutover_timestamp_seconds",
      "When the last cutover was committed.",
      (_, status) => status?.last_cutover ? Date.parse(status.last_cutover.at) / 1000 : undefined,
    ),
    each(
      "psma_cutover_io_errors",
      "Failed requests of the last cutover.",
      (_, status) => status?.last_cutover?.io_errors,
    ),
    each(
      "psma_cutover_latency_max_seconds",
      "Longest request around the last cutover.",
      (_, status) =>
        status?.last_cutover ? status.last_cutover.latency_us.window_max / MICROS : undefined,
    ),
    each(
      "psma_cutover_latency_p99_seconds",
      "99th percentile around the last cutover.",
      (_, status) =>
        status?.last_cutover ? status.last_cutover.latency_us.window_p99 / MICROS : undefined,
    ),
  ];
}

function planFamilies(each: Each): MetricFamily[] {
  return [
    each(
      "psma_forecast_full_probability",
      "Chance to fill within the horizon.",
      (unit) => unit.forecast?.time_to_limit?.probability_within_horizon,
    ),
    each(
      "psma_forecast_full_seconds",
      "Time to full at the policy's upper level.",
      (unit) => seconds(unit.plan?.numbers["full_in_ms"]),
    ),
    each(
      "psma_forecast_coverage_ratio",
      "Share of values inside the 80% interval.",
      (unit) => unit.forecast?.backtest.coverage80,
    ),
    each(
      "psma_forecast_fit_seconds",
      "Time that the last forecast took.",
      (unit) => seconds(unit.forecast?.fit_ms),
    ),
    each(
      "psma_plan_lead_seconds",
      "Time that a scaling event would take.",
      (unit) => seconds(unit.plan?.numbers["lead_ms"]),
    ),
  ];
}

function pressureFamilies(
  pressure: Pressure | undefined,
  one: (name: string, help: string, value: number) => MetricFamily,
): MetricFamily[] {
  if (!pressure) return [];
  const help = "Time in which at least one task of the machine waited for input or output.";
  return [one("psma_io_pressure_seconds_total", help, pressure.some_total_us / MICROS)];
}

function stateFamily(units: readonly VolumeUnit[]): MetricFamily {
  return {
    name: "psma_volume_state",
    help: "1 for the state that the volume is in.",
    type: "gauge",
    samples: units.flatMap(({ name, state }) =>
      STATES.map((one) => ({ labels: { volume: name, state: one }, value: one === state ? 1 : 0 }))
    ),
  };
}

/** Cumulative, as Prometheus wants it; octaves from 8 µs to 67 s, finer and coarser ones folded in. */
function latencyFamily(units: readonly VolumeUnit[]): MetricFamily {
  return {
    name: "psma_volume_request_seconds",
    help: "Time from admission to completion of a request.",
    type: "histogram",
    samples: units.flatMap(({ name, observation }) =>
      observation?.counters ? latencySamples(name, observation.counters) : []
    ),
  };
}

const FIRST_OCTAVE = 2, LAST_OCTAVE = 25;

function latencySamples(volume: string, counters: CounterPage): Sample[] {
  const { latency } = counters;
  const samples: Sample[] = [];
  let below = 0;
  for (let bucket = 0; bucket < latency.length; bucket++) {
    below += latency[bucket] ?? 0;
    const octave = Math.floor(bucket / BUCKETS_PER_OCTAVE);
    const ends = bucket % BUCKETS_PER_OCTAVE === BUCKETS_PER_OCTAVE - 1;
    if (!ends || octave < FIRST_OCTAVE || octave > LAST_OCTAVE) continue;
    const le = String(latencyBucketLimit(bucket) / MICROS);
    samples.push({ suffix: "_bucket", labels: { volume, le }, value: below });
  }
  const micros = counters.read_us + counters.write_us + counters.flush_us;
  return [
    ...samples,
    { suffix: "_bucket", labels: { volume, le: "+Inf" }, value: below },
    { suffix: "_sum", labels: { volume }, value: micros / MICROS },
    { suffix: "_count", labels: { volume }, value: below },
  ];
}

function kindOf(name: string): Kind {
  return name.endsWith("_total") ? "counter" : "gauge";
}

function seconds(ms: number | null | undefined): number | undefined {
  return ms === null || ms === undefined ? undefined : ms / 1000;
}
