/**
 * Long work that was asked for: one record each, kept over a restart. A record that was running when the
 * agent died goes on with the volume's intent, or is told to have been interrupted.
 */
import { type Clock, type Log, PsmaError, type Rng, supervise, toPsmaError } from "../core/mod.ts";
import { readFile, replaceFile } from "./state_files.ts";
import type { Operation } from "./views.ts";

/** The code of work that ends because the agent does. */
export const STOPPING = "unavailable/stopping";

const KEPT = 200;
const ID_BYTES = 6;

export class Operations {
  readonly #path: string;
  readonly #clock: Clock;
  readonly #rng: Rng;
  readonly #log: Log;
  readonly #records = new Map<string, Operation>();
  readonly #running = new Map<string, Promise<void>>();

  constructor(options: { path: string; clock: Clock; rng: Rng; log: Log }) {
    this.#path = options.path;
    this.#clock = options.clock;
    this.#rng = options.rng;
    this.#log = options.log;
    for (const record of decodeOperations(readFile(this.#path) ?? "[]")) {
      this.#records.set(record.id, record);
    }
  }

  /** @throws {PsmaError} not-found/operation */
  get(id: string): Operation {
    const record = this.#records.get(id);
    if (record) return record;
    throw new PsmaError("not-found/operation", `Cannot find operation ${id}: there is none`);
  }

  /** A new identifier, to be written down before the work begins. */
  newId(): string {
    return `op-${this.#rng.hex(ID_BYTES)}`;
  }

  /** Starts work and returns at once. An `id` that is known goes on where it was, or is under way already. */
  start(
    { id = this.newId(), verb, volume }: { id?: string; verb: string; volume: string },
    work: () => Promise<unknown>,
  ): Operation {
    if (this.#running.has(id)) return this.get(id);
    const record: Operation = {
      id,
      verb,
      volume,
      state: "running",
      started_at: this.#records.get(id)?.started_at ?? this.#now(),
      ended_at: null,
      error: null,
      result: null,
    };
    this.#keep(record);
    const running = supervise(`${verb} ${volume}`, this.#run(record, work), this.#log)
      .finally(() => this.#running.delete(id));
    this.#running.set(id, running);
    return record;
  }

  /** Ends the records that nobody works on any more. @param awaited ids that are gone on with later. */
  endInterrupted(awaited: ReadonlySet<string> = new Set()): void {
    for (const record of this.#records.values()) {
      if (record.state !== "running" || this.#running.has(record.id) || awaited.has(record.id)) {
        continue;
      }
      this.#end(record, {
        error: { code: "state/interrupted", title: "The agent was stopped before it was done" },
      });
    }
  }

  /** Waits until everything that runs has ended. */
  async settle(): Promise<void> {
    await Promise.all(this.#running.values());
  }

  /** @throws what the work threw, after it is on record. */
  async #run(record: Operation, work: () => Promise<unknown>) {
    try {
      this.#end(record, { result: await work() ?? null });
    } catch (error) {
      const { code, message, hint } = toPsmaError(error);
      // Cut off by the end of this process: the next one goes on with it, or tells that it cannot.
      if (code === STOPPING) return;
      this.#end(record, {
        error: { code, title: message, ...(hint === undefined ? {} : { hint }) },
      });
      throw error;
    }
  }

  #end(record: Operation, outcome: { error: Operation["error"] } | { result: unknown }) {
    const state = "error" in outcome ? "failed" : "done";
    this.#keep({ ...record, state, ended_at: this.#now(), ...outcome });
  }

  #keep(record: Operation) {
    this.#records.delete(record.id);
    this.#records.set(record.id, record);
    for (const [id, { state }] of this.#records) {
      if (this.#records.size <= KEPT) break;
      if (state !== "running") this.#records.delete(id);
    }
    replaceFile(this.#path, JSON.stringify([...this.#records.values()]) + "\n");
  }

  #now(): string {
    return new Date(this.#clock.nowMs()).toISOString();
  }
}

/** A file that cannot be read is history that is lost, no reason not to start. */
function decodeOperations(text: string): Operation[] {
  try {
    const records = JSON.parse(text);
    return Array.isArray(records) ? records : [];
  } catch {
    return [];
  }
}
