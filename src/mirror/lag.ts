/**
 * How old the oldest acknowledged write is that the target lacks. Known as finely as somebody looks: a write is
 * taken to be as old as the look before the one that found it, so the answer is never too small.
 */

/** What the volume's link tells at a moment. */
export interface Behind {
  /** Monotonic. */
  readonly nowMs: number;
  /** Bytes of chunks that became dirty so far; only rises. */
  readonly changedBytes: number;
  readonly dirtyBytes: number;
}

export class Lag {
  /** Undefined: the target was never complete since this began. Null: it lacks nothing. */
  #oldestMs: number | null | undefined;
  /** Of the writes that came after the round under way had begun. */
  #laterMs: number | null = null;
  #inRound = false;
  #changedBytes = 0;
  #changedMs: number;
  #lookedMs: number;

  constructor({ nowMs, changedBytes }: Omit<Behind, "dirtyBytes">) {
    this.#lookedMs = this.#changedMs = nowMs;
    this.#changedBytes = changedBytes;
  }

  /** Monotonic. */
  get oldestMs(): number | null | undefined {
    return this.#oldestMs;
  }

  /** When something became dirty last, as far as is known; monotonic. */
  get changedMs(): number {
    return this.#changedMs;
  }

  look({ nowMs, changedBytes, dirtyBytes }: Behind): void {
    const isChanged = changedBytes > this.#changedBytes;
    if (isChanged) {
      this.#changedBytes = changedBytes;
      this.#changedMs = nowMs;
      if (this.#inRound) this.#laterMs ??= this.#lookedMs;
    }
    // Also what a comparison or a lost target made dirty.
    if (!this.#inRound && dirtyBytes > 0 && this.#oldestMs === null) {
      this.#oldestMs = this.#lookedMs;
    }
    this.#lookedMs = nowMs;
  }

  roundBegins(behind: Behind): void {
    this.look(behind);
    this.#inRound = true;
    this.#laterMs = null;
  }

  /** @param isComplete everything that was dirty when it began is durable at the target. */
  roundEnds(behind: Behind, isComplete: boolean): void {
    this.look(behind);
    this.#inRound = false;
    if (isComplete) this.#oldestMs = behind.dirtyBytes > 0 ? this.#laterMs ?? behind.nowMs : null;
    else if (this.#oldestMs === null) this.#oldestMs = this.#laterMs ?? behind.nowMs;
  }

  /** Both sides hold the same, durably. */
  isWhole(behind: Behind): void {
    this.look(behind);
    this.#inRound = false;
    this.#oldestMs = null;
  }
}
