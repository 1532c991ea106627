/**
 * What happened: a ring in memory for readers, and a file of JSON lines that outlives the process.
 * Identifiers rise by one, over restarts too.
 *
 * Not promised: that the last events before a power cut are in the file; it is not flushed for each.
 */
import { type Clock, type Log, toPsmaError, writeAllSync } from "../core/mod.ts";
import { readFile } from "./state_files.ts";
import type { AgentEvent } from "./views.ts";

const RING_LENGTH = 4096;
const LIST_LENGTH_MAX = 1000;
/** At this size the file becomes `.1`, and the former `.1` goes. */
const ROTATE_BYTES = 4 * 1024 * 1024;

export interface NewEvent {
  readonly type: string;
  readonly message: string;
  readonly severity?: AgentEvent["severity"];
  readonly volume?: string | undefined;
  readonly data?: AgentEvent["data"] | undefined;
  /** Default: now. */
  readonly at_ms?: number;
}

export class EventLog {
  readonly #ring: AgentEvent[] = [];
  readonly #listeners = new Set<(event: AgentEvent) => void>();
  readonly #path: string;
  readonly #log: Log;
  readonly #clock: Clock;
  #file: Deno.FsFile | undefined;
  #bytes = 0;
  #lastId = 0;

  /** Takes the newest events of an earlier run into the ring. @param path of the JSON-lines file. */
  constructor({ path, log, clock }: { path: string; log: Log; clock: Clock }) {
    this.#path = path;
    this.#log = log;
    this.#clock = clock;
    for (const file of [`${path}.1`, path]) {
      for (const event of decodeEvents(readFile(file) ?? "")) this.#remember(event);
    }
    this.#open();
  }

  get lastId(): number {
    return this.#lastId;
  }

  add(event: NewEvent): AgentEvent {
    const full: AgentEvent = {
      id: this.#lastId + 1,
      at: new Date(event.at_ms ?? this.#clock.nowMs()).toISOString(),
      type: event.type,
      severity: event.severity ?? "info",
      volume: event.volume ?? null,
      message: event.message,
      data: event.data ?? {},
    };
    this.#remember(full);
    this.#write(full);
    this.#tell(full);
    for (const listener of this.#listeners) this.#callBack(listener, full);
    return full;
  }

  /** Events with id > after, oldest first; without `after` the newest. */
  list(
    { after, limit = 100, volume }: { after?: number; limit?: number; volume?: string },
  ): AgentEvent[] {
    const count = Math.min(Math.max(0, limit), LIST_LENGTH_MAX);
    const found = this.#ring.filter((event) =>
      event.id > (after ?? 0) && (volume === undefined || event.volume === volume)
    );
    return after === undefined
      ? found.slice(Math.max(0, found.length - count))
      : found.slice(0, count);
  }

  subscribe(onEvent: (event: AgentEvent) => void, signal: AbortSignal): void {
    if (signal.aborted) return;
    this.#listeners.add(onEvent);
    signal.addEventListener("abort", () => this.#listeners.delete(onEvent), { once: true });
  }

  close(): void {
    this.#file?.close();
    this.#file = undefined;
  }

  #remember(event: AgentEvent) {
    this.#ring.push(event);
    if (this.#ring.length > RING_LENGTH) this.#ring.shift();
    this.#lastId = Math.max(this.#lastId, event.id);
  }

  #write(event: AgentEvent) {
    if (this.#file === undefined) return;
    const line = JSON.stringify(event) + "\n";
    try {
      if (this.#bytes + line.length > ROTATE_BYTES) this.#rotate();
      writeAllSync(this.#file, line);
      this.#bytes += line.length;
    } catch (error) {
      this.#log.error("events cannot be kept", { reason: toPsmaError(error).message });
    }
  }

  #rotate() {
    this.close();
    Deno.renameSync(this.#path, `${this.#path}.1`);
    this.#open();
  }

  #open() {
    this.#file = Deno.openSync(this.#path, { append: true, create: true, mode: 0o600 });
    this.#bytes = this.#file.statSync().size;
    // A line that a crash cut short is ended, so that the next one can be read.
    if (this.#bytes > 0 && !endsWithNewline(this.#path, this.#bytes)) {
      writeAllSync(this.#file, "\n");
    }
  }

  #tell({ type, severity, volume, message }: AgentEvent) {
    const line = severity === "warning" ? "warn" : severity;
    this.#log[line](message, { event: type, volume: volume ?? undefined });
  }

  #callBack(listener: (event: AgentEvent) => void, event: AgentEvent) {
    try {
      listener(event);
    } catch (error) {
      this.#log.error("a listener of events failed", { reason: toPsmaError(error).message });
    }
  }
}

/** Lines that are not whole are left out. */
function decodeEvents(text: string): AgentEvent[] {
  return text.split("\n").flatMap((line) => {
    try {
      const event = JSON.parse(line) as AgentEvent;
      return Number.isSafeInteger(event.id) ? [event] : [];
    } catch {
      return []; // Cut short by a crash, or the empty end.
    }
  });
}

function endsWithNewline(path: string, bytes: number): boolean {
  using file = Deno.openSync(path);
  file.seekSync(bytes - 1, Deno.SeekMode.Start);
  const last = new Uint8Array(1);
  file.readSync(last);
  return last[0] === 10;
}
