/** What a back-test runs: a task is a set of series, how they roll up, and from which origins they are forecast. */
import { parse } from "csv-parse/sync";
import { PsmaError } from "../../core/mod.ts";

/** One line of a task file; `step_s` in seconds, everything else that counts counts steps. */
export interface BacktestTask {
  readonly task: string;
  /** Folder of the data below the data directory. */
  readonly set: string;
  readonly file: string;
  /** Column of the file that holds the values. */
  readonly value: string;
  readonly step_s: number;
  /** `last` and `mean` of a slot; `raw` takes the values in their order. */
  readonly agg: "last" | "mean" | "raw";
  /** Seasonal periods; 1 and 0 stand for none. */
  readonly m: number;
  readonly m2: number;
  /** Horizon. */
  readonly h: number;
  readonly n_min: number;
  readonly n_max: number;
  readonly n_origins: number;
  readonly nonneg: boolean;
  readonly kind: "capacity" | "io" | "generic";
}

/** A forecast to make and what came. */
export interface BacktestCase {
  readonly task: BacktestTask;
  readonly series: string;
  /** 1-based index of the last training point after roll-up. */
  readonly origin: number;
  readonly training: readonly number[];
  readonly actual: readonly number[];
}

/** @throws {PsmaError} usage/tasks naming line and column. */
export function parseTasks(text: string): BacktestTask[] {
  return readRows(text, "tasks").map((row, index) => {
    const field = (name: string): string => {
      const value = row[name];
      if (value !== undefined && value !== "") return value;
      throw new PsmaError("usage/tasks", `Cannot read tasks: line ${index + 2} has no ${name}`);
    };
    const oneOf = <Word extends string>(name: string, words: readonly Word[]): Word => {
      const found = words.find((word) => word === field(name));
      if (found !== undefined) return found;
      const known = words.join(", ");
      throw new PsmaError(
        "usage/tasks",
        `Cannot read tasks: ${name} of line ${index + 2} is ${field(name)}, not one of ${known}`,
      );
    };
    const count = (name: string, least: number): number => {
      const value = Number(field(name));
      if (Number.isSafeInteger(value) && value >= least) return value;
      throw new PsmaError(
        "usage/tasks",
        `Cannot read tasks: ${name} of line ${index + 2} is ${field(name)}, not a whole number ` +
          `from ${least}`,
      );
    };
    return {
      task: field("task"),
      set: field("set"),
      file: field("file"),
      value: field("value"),
      step_s: count("step_s", 1),
      agg: oneOf("agg", ["last", "mean", "raw"]),
      m: count("m", 1),
      m2: count("m2", 0),
      h: count("h", 1),
      n_min: count("n_min", 2),
      n_max: count("n_max", 2),
      n_origins: count("n_origins", 1),
      nonneg: count("nonneg", 0) !== 0,
      kind: oneOf("kind", ["capacity", "io", "generic"]),
    };
  });
}

/** Rows of a CSV file with a header. @throws {PsmaError} usage/<what> for text that is not CSV. */
export function readRows(text: string, what: string): Record<string, string>[] {
  try {
    return parse(text, { columns: true, skip_empty_lines: true, bom: true, trim: true });
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new PsmaError(`usage/${what}`, `Cannot read ${what}: it is not CSV (${reason})`);
  }
}

/** The cases of one series: origins evenly spaced from its middle to the last that leaves a horizon. */
export function casesOf(
  task: BacktestTask,
  series: string,
  values: readonly number[],
): BacktestCase[] {
  return originsOf(values.length, task).flatMap((origin) => {
    const training = values.slice(Math.max(0, origin - task.n_max), origin);
    // What never changed says nothing about what will.
    if (training.every((value) => value === training[0])) return [];
    return [{ task, series, origin, training, actual: values.slice(origin, origin + task.h) }];
  });
}

/** Origins for a series of `length` points; none when it is too short. */
export function originsOf(
  length: number,
  { h, n_min, n_origins }: Pick<BacktestTask, "h" | "n_min" | "n_origins">,
): number[] {
  const last = length - h;
  if (last < n_min) return [];
  if (n_origins === 1) return [last];
  const first = Math.max(n_min, Math.min(last, roundEven(length / 2)));
  const spaced = Array.from(
    { length: n_origins },
    (_, at) => roundEven(first + (last - first) * at / (n_origins - 1)),
  );
  return [...new Set(spaced)];
}

/** Halves to the even neighbour, as IEEE 754 rounds. */
function roundEven(value: number): number {
  const whole = Math.floor(value);
  const rest = value - whole;
  if (rest !== 0.5) return Math.round(value);
  return whole % 2 === 0 ? whole : whole + 1;
}
