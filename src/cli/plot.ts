/** Pictures made of characters: a sparkline, a bar, and a chart of a forecast's band. */

const SPARKS = "▁▂▃▄▅▆▇█";
const EIGHTHS = " ▏▎▍▌▋▊▉█";

/** One character a value, between the smallest and the largest of them. Empty for no values. */
export function sparkline(values: readonly number[]): string {
  const low = Math.min(...values);
  const span = Math.max(...values) - low;
  return values.map((value) => {
    const level = span === 0 ? 0 : Math.round((value - low) / span * (SPARKS.length - 1));
    return SPARKS[level];
  }).join("");
}

/** @param share 0 to 1, held to it. @returns `width` characters. */
export function bar(share: number, width: number): string {
  const eighths = Math.round(Math.min(1, Math.max(0, share)) * width * 8);
  const full = Math.floor(eighths / 8);
  const part = full < width ? EIGHTHS[eighths % 8] : "";
  return ("█".repeat(full) + part).padEnd(width, "·").replaceAll(" ", "·");
}

export interface Band {
  readonly low: number;
  readonly middle: number;
  readonly high: number;
}

export interface ChartOptions {
  readonly width: number;
  readonly height: number;
  /** A line across, such as the capacity. */
  readonly limit?: number;
  readonly format: (value: number) => string;
}

/** Draws the middle as `●` in a band of `░`, the limit as `─`; values rise upwards, time runs right. */
export function bandChart(bands: readonly Band[], options: ChartOptions): string {
  const { height, limit, format } = options;
  if (bands.length === 0) return "";
  const values = bands.flatMap(({ low, high }) => [low, high]);
  const top = Math.max(...values, limit ?? -Infinity);
  const bottom = Math.min(...values, limit ?? Infinity);
  const span = top - bottom || 1;
  const rowOf = (value: number) => Math.round((value - bottom) / span * (height - 1));
  const labels = [format(bottom), format(top)];
  const margin = Math.max(...labels.map((label) => label.length));
  const columns = Math.max(1, options.width - margin - 2);
  const shown = Array.from(
    { length: Math.min(columns, bands.length * 2) },
    (_, at, count = Math.min(columns, bands.length * 2)) =>
      bands[Math.floor(at * bands.length / count)] as Band,
  );
  return Array.from({ length: height }, (_, line) => {
    const row = height - 1 - line;
    const label = row === 0 ? labels[0] : row === height - 1 ? labels[1] : "";
    const cells = shown.map(({ low, middle, high }) => {
      if (rowOf(middle) === row) return "●";
      if (limit !== undefined && rowOf(limit) === row) return "─";
      return rowOf(low) <= row && row <= rowOf(high) ? "░" : " ";
    });
    return `${(label ?? "").padStart(margin)} ┤${cells.join("")}`.trimEnd();
  }).join("\n");
}
