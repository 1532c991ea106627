/** Tables as text: columns as wide as their widest cell, numbers to the right. */
import { widthOf } from "./terminal.ts";

export interface Column {
  readonly title: string;
  readonly align?: "left" | "right";
}

/** @returns lines without a line end; the last column is not padded. */
export function formatTable(
  columns: readonly Column[],
  rows: readonly (readonly string[])[],
): string {
  const lines = [columns.map(({ title }) => title), ...rows];
  const widths = columns.map((_, at) => Math.max(...lines.map((line) => widthOf(line[at] ?? ""))));
  return lines.map((line) =>
    columns.map(({ align }, at) => {
      const cell = line[at] ?? "";
      const blanks = " ".repeat((widths[at] ?? 0) - widthOf(cell));
      return align === "right" ? blanks + cell : cell + blanks;
    }).join("  ").trimEnd()
  ).join("\n");
}

/** Names and values, one pair a line, values in one column. */
export function formatPairs(pairs: readonly (readonly [string, string])[]): string {
  const width = Math.max(0, ...pairs.map(([name]) => widthOf(name)));
  return pairs.map(([name, value]) => `${name}${" ".repeat(width - widthOf(name))}  ${value}`)
    .join("\n");
}
