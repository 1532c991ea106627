/** Structured log lines on standard error: human on a terminal, logfmt elsewhere. */
import { type Clock, systemClock } from "./clock.ts";

export type LogLevel = "debug" | "info" | "warn" | "error";
export type LogFields = Readonly<Record<string, string | number | boolean | undefined>>;

export interface Log {
  debug(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  error(message: string, fields?: LogFields): void;
  /** A log whose every line carries these fields too. */
  with(fields: LogFields): Log;
}

const RANK: Readonly<Record<LogLevel, number>> = { debug: 0, info: 1, warn: 2, error: 3 };

export interface LogOptions {
  readonly level?: LogLevel;
  readonly write?: (line: string) => void;
  readonly clock?: Clock;
  readonly fields?: LogFields;
}

const encoder = new TextEncoder();
const writeStderr = (line: string) => {
  Deno.stderr.writeSync(encoder.encode(line + "\n"));
};

/** A log that writes to standard error. @param options.level lines below it are dropped (default `info`). */
export function createLog(options: LogOptions = {}): Log {
  const { level = "info", write = writeStderr, clock = systemClock, fields = {} } = options;
  const line = (at: LogLevel, message: string, more: LogFields = {}) => {
    if (RANK[at] < RANK[level]) return;
    const pairs = Object.entries({ ...fields, ...more })
      .filter(([, value]) => value !== undefined)
      .map(([key, value]) => `${key}=${quote(String(value))}`);
    write([new Date(clock.nowMs()).toISOString(), at, message, ...pairs].join(" "));
  };
  return {
    debug: (message, more) => line("debug", message, more),
    info: (message, more) => line("info", message, more),
    warn: (message, more) => line("warn", message, more),
    error: (message, more) => line("error", message, more),
    with: (more) => createLog({ level, write, clock, fields: { ...fields, ...more } }),
  };
}

export const silentLog: Log = createLog({ write: () => {} });

function quote(value: string): string {
  return /^[\w./:@+-]+$/.test(value) ? value : JSON.stringify(value);
}
