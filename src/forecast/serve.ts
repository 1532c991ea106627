/**
 * The child process: one DuckDB, requests on standard input, answers on standard output, a line of JSON each.
 * It ends when its input ends. A lock beside the database keeps a second child away; the kernel
 * releases it however this process dies.
 */
import os from "node:os";
import { type Clock, PsmaError, systemClock, toPsmaError } from "../core/mod.ts";
import { Database } from "./database.ts";
import { forecastArray, forecastVolume } from "./forecasting.ts";
import { readLines } from "./lines.ts";
import { SampleStore } from "./store.ts";
import type { ChildAnswers, ChildHello, ChildReply, ChildRequest } from "./types.ts";

export interface ServeOptions {
  /** State directory; without it only `series` requests are answered, from memory. */
  readonly dir?: string | undefined;
  readonly memory_limit_mib?: number;
  readonly clock?: Clock;
}

const NICENESS = 10;
const DATABASE = "forecast.duckdb";
const LOCK = "forecast.lock";

/** Serves until standard input ends. @returns the process's exit code. */
export async function serveLines(options: ServeOptions): Promise<number> {
  // Forecasts can wait; the application and the data plane cannot.
  os.setPriority(NICENESS);
  let child: Child;
  try {
    child = await Child.open(options);
  } catch (error) {
    say({ ready: false, error: toPsmaError(error, "forecast/start").toRecord() });
    return 1;
  }
  say({ ready: true, set_aside: child.setAside });
  for await (const line of readLines(Deno.stdin.readable)) {
    const message = JSON.parse(line) as { seq: number } & ChildRequest;
    say(answer(child, message));
  }
  child.close();
  return 0;
}

function answer(child: Child, message: { seq: number } & ChildRequest): ChildReply {
  try {
    return { seq: message.seq, ok: true, result: child.handle(message) };
  } catch (error) {
    return { seq: message.seq, ok: false, error: toPsmaError(error).toRecord() };
  }
}

interface ChildParts {
  readonly database: Database;
  readonly store?: SampleStore;
  readonly path?: string;
  readonly lock?: Deno.FsFile;
  readonly set_aside: string | null;
  readonly clock: Clock;
}

class Child {
  readonly #database: Database;
  readonly #store: SampleStore | undefined;
  readonly #path: string | undefined;
  readonly #lock: Deno.FsFile | undefined;
  readonly #clock: Clock;
  /** Where a damaged database went; null when there was none. */
  readonly setAside: string | null;

  private constructor(parts: ChildParts) {
    this.#database = parts.database;
    this.#store = parts.store;
    this.#path = parts.path;
    this.#lock = parts.lock;
    this.#clock = parts.clock;
    this.setAside = parts.set_aside;
  }

  /** @throws {PsmaError} state/forecast-locked while another process has the database. */
  static async open(options: ServeOptions): Promise<Child> {
    const { dir, memory_limit_mib = 512, clock = systemClock } = options;
    if (dir === undefined) {
      return new Child({
        database: await Database.open({ memory_limit_mib }),
        set_aside: null,
        clock,
      });
    }
    const lock = takeLock(`${dir}/${LOCK}`);
    const path = `${dir}/${DATABASE}`;
    const common = { path, lock, clock };
    try {
      return new Child({ ...await openStore(path, memory_limit_mib), set_aside: null, ...common });
    } catch (error) {
      if (!isDamage(error)) throw error;
      const set_aside = setAside(path);
      return new Child({ ...await openStore(path, memory_limit_mib), set_aside, ...common });
    }
  }

  handle(message: ChildRequest): ChildAnswers[keyof ChildAnswers] {
    const elapsed = () => this.#clock.monotonicMs();
    switch (message.kind) {
      case "ingest":
        return this.#samples().ingest(message.segments, message.now_ms);
      case "forecast":
        return forecastVolume(
          this.#database,
          this.#samples(),
          message.request,
          message.now_ms,
          elapsed,
        );
      case "history":
        return this.#samples().history(message.query);
      case "series":
        return forecastArray(this.#database, message.request, elapsed);
      case "compact":
        this.#samples().compact(message.now_ms);
        return { database_bytes: this.#path === undefined ? 0 : Deno.statSync(this.#path).size };
    }
  }

  close(): void {
    this.#database.close();
    this.#lock?.close();
  }

  #samples(): SampleStore {
    if (!this.#store) {
      throw new PsmaError("state/forecaster", "Cannot read samples: no state directory is open");
    }
    return this.#store;
  }
}

function takeLock(path: string): Deno.FsFile {
  const file = Deno.openSync(path, { create: true, write: true, mode: 0o600 });
  if (file.tryLockSync(true)) return file;
  file.close();
  throw new PsmaError(
    "state/forecast-locked",
    `Cannot open forecast database: ${path} is held by another process`,
    {
      hint: "Only one agent may use a state directory.",
    },
  );
}

/** Opens the database and reads every row once, so that damage shows here and not in the middle of a forecast. */
async function openStore(
  path: string,
  memory_limit_mib: number,
): Promise<{ database: Database; store: SampleStore }> {
  const database = await Database.open({ path, memory_limit_mib });
  const store = new SampleStore(database);
  store.readAll();
  return { database, store };
}

/** A machine without memory or a full disk says nothing about the file. */
function isDamage(error: unknown): boolean {
  return error instanceof PsmaError && /^forecast\/(database|query)$/.test(error.code) &&
    !/out of memory|no space left/i.test(error.message);
}

/** Keeps the newest damaged file for inspection; an older one is replaced. */
function setAside(path: string): string {
  const aside = `${path}.damaged`;
  Deno.renameSync(path, aside);
  return aside;
}

const encoder = new TextEncoder();

function say(message: ChildHello | ChildReply): void {
  const bytes = encoder.encode(JSON.stringify(message) + "\n");
  for (let done = 0; done < bytes.length;) done += Deno.stdout.writeSync(bytes.subarray(done));
}
