/** How a guest program reports to its test, runs commands and waits. */
import { closeSync, openSync, writeSync } from "node:fs";

const REPORT = "/dev/ttyS1";
const DETAIL_CHARACTERS_MAX = 2000;

/**
 * Runs one step and reports how it went, on the console for people and on the second serial port for
 * the test. What it returns is the detail when it is a string. A failed step ends the program, since
 * the next ones build on it: its message is reported first.
 */
export async function step<T>(name: string, action: () => T | Promise<T>): Promise<T> {
  const began_ms = performance.now();
  try {
    const value = await action();
    report(name, true, began_ms, typeof value === "string" ? value : "");
    return value;
  } catch (error) {
    report(
      name,
      false,
      began_ms,
      error instanceof Error ? error.stack ?? error.message : `${error}`,
    );
    Deno.exit(1);
  }
}

function report(name: string, ok: boolean, began_ms: number, text: string): void {
  const took = `${((performance.now() - began_ms) / 1000).toFixed(1)} s`;
  const detail = `${took} ${text}`.trim().slice(-DETAIL_CHARACTERS_MAX);
  const line = `${JSON.stringify({ step: name, ok, detail })}\n`;
  Deno.stdout.writeSync(new TextEncoder().encode(line));
  const fd = openSync(REPORT, "a");
  writeSync(fd, line);
  closeSync(fd);
}

/** @throws {Error} with `what` when it is not so. */
export function check(holds: boolean, what: string): void {
  if (!holds) throw new Error(what);
}
