/**
 * Events of connections, kept from becoming a storm: a peer that comes and goes for ever, or knocks again and
 * again with a right that it has lost, is one cause.
 *
 * The first few of a kind for a volume pass at once. Further ones within the window are counted; when it ends
 * the latest is told, with the count, so that the last word in the log is what was last true.
 */
import type { Clock } from "../core/mod.ts";
import type { DataPlaneEvent } from "./messages.ts";

type Told = Omit<DataPlaneEvent, "at_ms">;

/** Events of one kind that pass in a window. */
export const REPEATS_TOLD = 4;
export const REPEATS_WINDOW_MS = 300_000;

interface Kind {
  readonly since_ms: number;
  told: number;
  held: number;
  latest: Told;
}

export class Repeats {
  /** By type and volume: both are few. Oldest word first. */
  readonly #kinds = new Map<string, Kind>();

  constructor(readonly clock: Clock, readonly emit: (event: Told) => void) {}

  tell(event: Told): void {
    const key = `${event.type} ${event.volume ?? ""}`;
    const known = this.#kinds.get(key);
    const kind = known ??
      { since_ms: this.clock.monotonicMs(), told: 0, held: 0, latest: event };
    // The order of the last words is kept: what was lost last is told after what came back.
    this.#kinds.delete(key);
    this.#kinds.set(key, kind);
    kind.latest = event;
    if (kind.told < REPEATS_TOLD) {
      kind.told++;
      this.emit(event);
    } else kind.held++;
  }

  /** To be called now and then: tells what was held back in windows that have ended. */
  keepHouse(): void {
    const before_ms = this.clock.monotonicMs() - REPEATS_WINDOW_MS;
    for (const [key, { since_ms, held, latest }] of [...this.#kinds]) {
      if (since_ms > before_ms) continue;
      this.#kinds.delete(key);
      if (held === 0) continue;
      this.emit({ ...latest, data: { ...latest.data, repeated: held } });
    }
  }
}
