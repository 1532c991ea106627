/** Prometheus text exposition format 0.0.4: https://prometheus.io/docs/instrumenting/exposition_formats/ */
import type { MetricFamily } from "../agent/mod.ts";

export const EXPOSITION_TYPE = "text/plain; version=0.0.4; charset=utf-8";

/** @returns one HELP and TYPE line per family, then its samples, in the order given. */
export function encodeMetrics(families: readonly MetricFamily[]): string {
  return families.map((family) => {
    const head = `# HELP ${family.name} ${escapeHelp(family.help)}\n` +
      `# TYPE ${family.name} ${family.type}\n`;
    const lines = family.samples.map(({ suffix = "", labels, value }) =>
      `${family.name}${suffix}${encodeLabels(labels)} ${encodeValue(value)}\n`
    );
    return head + lines.join("");
  }).join("");
}

function encodeLabels(labels: Readonly<Record<string, string>>): string {
  const pairs = Object.entries(labels).map(([name, value]) => `${name}="${escapeLabel(value)}"`);
  return pairs.length === 0 ? "" : `{${pairs.join(",")}}`;
}

function encodeValue(value: number): string {
  if (Number.isNaN(value)) return "NaN";
  if (!Number.isFinite(value)) return value > 0 ? "+Inf" : "-Inf";
  return String(value);
}

function escapeHelp(text: string): string {
  return text.replaceAll("\\", "\\\\").replaceAll("\n", "\\n");
}

function escapeLabel(text: string): string {
  return escapeHelp(text).replaceAll('"', '\\"');
}
