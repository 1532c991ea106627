/** Pressure stall information of the machine (Linux 4.20 and up, Documentation/accounting/psi.rst). */

export interface Pressure {
  /** Share of the last 10 s in which at least one task waited for input or output, 0 to 1. */
  readonly some_avg10: number;
  /** Share of the last 10 s in which all tasks waited, 0 to 1. */
  readonly full_avg10: number;
  /** Time since boot in which at least one task waited, microseconds; only rises. */
  readonly some_total_us: number;
}

/** @param text of /proc/pressure/io. @returns undefined where it does not have the promised form. */
export function decodePressure(text: string): Pressure | undefined {
  const field = (line: string, name: string) => {
    const match = new RegExp(`^${line} .*\\b${name}=([\\d.]+)`, "m").exec(text);
    return match ? Number(match[1]) : undefined;
  };
  const some = field("some", "avg10"), total = field("some", "total");
  if (some === undefined || total === undefined) return undefined;
  const full = field("full", "avg10") ?? 0;
  return { some_avg10: some / 100, full_avg10: full / 100, some_total_us: total };
}
