/**
 * The forecaster as the agent holds it: samples go into the journal at once; questions wait in a bounded
 * queue for the child process, which is started for them and ended when it has been idle.
 *
 * Every question first moves the journal into the database, so that an answer knows every sample that
 * was appended before it was asked.
 */
import {
  BoundedQueue,
  type Clock,
  type Log,
  PsmaError,
  type SelfCommand,
  selfCommand,
  supervise,
  systemClock,
  toPsmaError,
} from "../core/mod.ts";
import { Journal } from "./journal.ts";
import { ForecasterProcess } from "./process.ts";
import {
  type ChildAnswers,
  type ChildRequest,
  type CompactResult,
  type Forecast,
  type ForecastRequest,
  type HistoryPoint,
  type HistoryQuery,
  isMetric,
  type Sample,
  type SeriesForecast,
  type SeriesRequest,
} from "./types.ts";

export interface Forecaster {
  /**
   * Journals samples; cheap, and durable against the death of this process. Never throws for the disk's
   * sake: a failure is kept in `lastError`, counted and logged. Samples that are not finite are dropped.
   */
  append(samples: readonly Sample[]): void;
  /** @throws {PsmaError} forecast/short-history, usage/forecast, timeout/forecaster, unavailable/forecaster, state/forecaster-busy */
  forecast(request: ForecastRequest): Promise<Forecast>;
  /** Rolled up to `step_ms`, oldest first, what is still in the journal included; empty for an unknown series. */
  history(query: HistoryQuery): Promise<readonly HistoryPoint[]>;
  /** Forecasts a plain array without touching what is stored. */
  forecastSeries(request: SeriesRequest): Promise<SeriesForecast>;
  /** Moves the journal into the database and drops what is past its retention. */
  compact(): Promise<CompactResult>;
  close(): Promise<void>;
  /** The last failure of the journal, of a background compaction or of the child; cleared by a success. */
  readonly lastError: PsmaError | undefined;
  readonly droppedSamples: number;
  /** The child's process id while it runs. */
  readonly childPid: number | undefined;
}

export interface ForecasterOptions {
  /** Its own directory, made when absent: `journal/` and the database. */
  readonly dir: string;
  readonly log: Log;
  readonly clock?: Clock;
  /** The child is ended after this long without a question; its memory goes back. Default 20 s. */
  readonly idle_ms?: number;
  /** Of one question, a cold start included. Default 60 s. */
  readonly timeout_ms?: number;
  /** Default: this program's own `internal forecaster --dir DIR`. */
  readonly command?: SelfCommand;
}

interface Job {
  readonly request: () => ChildRequest;
  resolve(result: unknown): void;
  reject(error: unknown): void;
}

const QUEUE_LENGTH_MAX = 256;
/** The journal is moved into the database unasked when it is longer than this. */
const COMPACT_BEYOND_BYTES = 4 << 20;
/** Numbers of a new journal begin above any that a lost one can have used. */
const SEQ_PER_MS = 512;

/** @throws {PsmaError} io/journal when the directory cannot be used. */
// deno-lint-ignore require-await -- opening may come to wait for a disk; callers await it already.
export async function openForecaster(options: ForecasterOptions): Promise<Forecaster> {
  return new JournalledForecaster(options);
}

class JournalledForecaster implements Forecaster {
  readonly #options: Required<ForecasterOptions>;
  readonly #journal: Journal;
  readonly #jobs = new BoundedQueue<Job>(QUEUE_LENGTH_MAX);
  readonly #shared = new Map<string, Promise<unknown>>();
  #process: ForecasterProcess | undefined;
  #working: Promise<void> | undefined;
  #idle: AbortController | undefined;
  #idling: Promise<void> = Promise.resolve();
  #compacting = false;
  #closed = false;
  #lastError: PsmaError | undefined;
  #droppedSamples = 0;

  constructor(options: ForecasterOptions) {
    const { dir, clock = systemClock } = options;
    this.#options = {
      idle_ms: 20_000,
      timeout_ms: 60_000,
      command: selfCommand(["internal", "forecaster", "--dir", dir]),
      ...options,
      clock,
    };
    this.#journal = Journal.open({
      dir: `${dir}/journal`,
      log: options.log,
      first_seq: Math.floor(clock.nowMs()) * SEQ_PER_MS,
    });
  }

  get lastError(): PsmaError | undefined {
    return this.#lastError;
  }

  get droppedSamples(): number {
    return this.#droppedSamples;
  }

  get childPid(): number | undefined {
    return this.#process?.alive ? this.#process.pid : undefined;
  }

  append(samples: readonly Sample[]): void {
    const sound = samples.filter((s) =>
      Number.isFinite(s.value) && Number.isFinite(s.at_ms) && isMetric(s.metric) &&
      s.volume.length <= 64
    );
    this.#droppedSamples += samples.length - sound.length;
    if (sound.length === 0 || this.#closed) return;
    try {
      this.#journal.append(sound);
    } catch (error) {
      this.#droppedSamples += sound.length;
      this.#fail("sample journal failed", error);
    }
    if (this.#journal.bytes > COMPACT_BEYOND_BYTES) this.#compactLater();
  }

  forecast(request: ForecastRequest): Promise<Forecast> {
    return this.#ask<"forecast">(
      JSON.stringify(["forecast", request]),
      () => ({ kind: "forecast", request, now_ms: this.#now() }),
    );
  }

  history(query: HistoryQuery): Promise<readonly HistoryPoint[]> {
    return this.#ask<"history">(
      JSON.stringify(["history", query]),
      () => ({ kind: "history", query }),
    );
  }

  forecastSeries(request: SeriesRequest): Promise<SeriesForecast> {
    return this.#ask<"series">(undefined, () => ({ kind: "series", request }));
  }

  compact(): Promise<CompactResult> {
    return this.#ask<"compact">("compact", () => ({ kind: "compact", now_ms: this.#now() }));
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#idle?.abort();
    await this.#working;
    await this.#idling;
    await this.#endProcess();
    this.#journal.close();
  }

  #now(): number {
    return Math.round(this.#options.clock.nowMs());
  }

  /** Queues a question; the same question asked again before it is answered shares the answer. */
  #ask<K extends ChildRequest["kind"]>(
    key: string | undefined,
    request: () => Extract<ChildRequest, { kind: K }>,
  ): Promise<ChildAnswers[K]> {
    if (this.#closed) {
      return Promise.reject(closed());
    }
    const shared = key === undefined ? undefined : this.#shared.get(key);
    if (shared) return shared as Promise<ChildAnswers[K]>;
    const answer = new Promise<unknown>((resolve, reject) => {
      if (this.#jobs.push({ request, resolve, reject })) return;
      reject(
        new PsmaError(
          "unavailable/forecaster-busy",
          `Cannot forecast: ${QUEUE_LENGTH_MAX} requests are waiting`,
        ),
      );
    });
    if (key !== undefined) {
      this.#shared.set(key, answer);
      const forget = () => this.#shared.delete(key);
      answer.then(forget, forget);
    }
    this.#working ??= this.#work();
    return answer as Promise<ChildAnswers[K]>;
  }

  async #work(): Promise<void> {
    this.#idle?.abort();
    await this.#idling;
    for (let job = this.#jobs.shift(); job; job = this.#jobs.shift()) {
      try {
        if (this.#closed) throw closed();
        job.resolve(await this.#answer(job.request()));
        this.#lastError = undefined;
      } catch (error) {
        job.reject(error);
        const { code } = toPsmaError(error);
        if (!/^(usage|state\/forecaster|forecast\/short-history)/.test(code)) {
          this.#fail("forecaster failed", error);
        }
      }
    }
    this.#working = undefined;
    if (!this.#closed) this.#idling = this.#endWhenIdle();
  }

  async #answer(request: ChildRequest): Promise<unknown> {
    const process = await this.#running();
    try {
      if (request.kind !== "series") await this.#ingest(process);
      return await process.ask(request);
    } catch (error) {
      // A database that failed inside is not trusted again: the next child checks the file as it opens it.
      if (toPsmaError(error).code === "forecast/query") await this.#endProcess("kill");
      throw error;
    }
  }

  async #ingest(process: ForecasterProcess): Promise<void> {
    const segments = this.#journal.rotate();
    if (segments.length === 0) return;
    const { ingested_seq } = await process.ask({ kind: "ingest", segments, now_ms: this.#now() });
    this.#journal.drop(ingested_seq);
  }

  async #running(): Promise<ForecasterProcess> {
    if (!this.#process?.alive) {
      const { command, clock, log, timeout_ms } = this.#options;
      this.#process = await ForecasterProcess.start({ command, clock, log, timeout_ms });
    }
    return this.#process;
  }

  async #endProcess(how: "end" | "kill" = "end"): Promise<void> {
    const process = this.#process;
    this.#process = undefined;
    await (how === "end" ? process?.end() : process?.kill());
  }

  async #endWhenIdle(): Promise<void> {
    const idle = this.#idle = new AbortController();
    try {
      await this.#options.clock.sleep(this.#options.idle_ms, idle.signal);
    } catch {
      return;
    }
    if (!this.#working) await this.#endProcess();
  }

  #compactLater(): void {
    if (this.#compacting || this.#closed) return;
    this.#compacting = true;
    const done = this.compact().finally(() => this.#compacting = false);
    supervise("forecast compaction", done, this.#options.log);
  }

  #fail(what: string, error: unknown): void {
    const failure = toPsmaError(error);
    if (this.#lastError?.message !== failure.message) {
      this.#options.log.warn(what, { code: failure.code, reason: failure.message });
    }
    this.#lastError = failure;
  }
}

function closed(): PsmaError {
  return new PsmaError("state/forecaster", "Cannot forecast: forecaster is closed");
}
