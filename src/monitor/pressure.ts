/** Pressure stall information of the machine (Linux 4.20 and up, Documentation/accounting/psi.rst). */

export interface Pressure {
  /** Time since boot in which at least one task waited, microseconds; only rises. */
  readonly some_total_us: number;
}

/** @param text of /proc/pressure/io. @returns undefined where it does not have the promised form. */
export function decodePressure(text: string): Pressure | undefined {
  const match = /^some .*\btotal=(\d+)/m.exec(text);
  return match ? { some_total_us: Number(match[1]) } : undefined;
}
