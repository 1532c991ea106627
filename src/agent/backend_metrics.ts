/** Metrics of what a volume's active backend did, by kind of operation. They begin anew after a switch. */
import type { OperationReport, VolumeStatus } from "../dataplane/mod.ts";
import type { MetricFamily } from "./views.ts";

const MICROS = 1e6;

interface Served {
  readonly name: string;
  readonly status: VolumeStatus | undefined;
}

/** One sample a volume and kind of operation that there was any of. */
export function backendFamilies(volumes: readonly Served[]): MetricFamily[] {
  const family = (
    name: string,
    help: string,
    type: MetricFamily["type"],
    value: (report: OperationReport) => number,
  ): MetricFamily => ({
    name,
    help,
    type,
    samples: volumes.flatMap(({ name: volume, status }) =>
      (status?.operations ?? []).map((report) => ({
        labels: { volume, operation: report.operation },
        value: value(report),
      }))
    ),
  });
  return [
    family(
      "psma_backend_operations_total",
      "Operations that the active backend completed.",
      "counter",
      ({ count }) => count,
    ),
    family(
      "psma_backend_errors_total",
      "Those of them that failed.",
      "counter",
      ({ errors }) => errors,
    ),
    family(
      "psma_backend_bytes_total",
      "Bytes of those that succeeded.",
      "counter",
      ({ bytes }) => bytes,
    ),
    family(
      "psma_backend_latency_p99_seconds",
      "99th percentile of their latency since the backend was opened.",
      "gauge",
      ({ latency_us }) => latency_us.p99 / MICROS,
    ),
  ];
}
