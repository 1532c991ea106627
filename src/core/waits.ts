/**
 * Waits that may end early, again and again. `Promise.race` with a promise that stays pending keeps something of
 * every race, and what it was won by, for as long as that promise lives; these keep nothing.
 */
import type { Turns } from "./turns.ts";

/** Told at any time; whoever waits for it then goes on. */
export class Signal {
  readonly #waiting = new Set<() => void>();

  constructor(readonly turns: Pick<Turns, "deferred">) {}

  /** How many wait. */
  get waiting(): number {
    return this.#waiting.size;
  }

  /** Resolves when `other` settles, or when the signal is told before. */
  or(other: Promise<unknown>): Promise<void> {
    const { promise, resolve } = this.turns.deferred<void>();
    const over = () => {
      this.#waiting.delete(over);
      resolve();
    };
    this.#waiting.add(over);
    other.then(over, over);
    return promise;
  }

  tell(): void {
    for (const over of [...this.#waiting]) over();
  }
}

/** Once broken, nothing is waited for any more. */
export class Breaker {
  readonly #waiting = new Set<(error: unknown) => void>();
  #broken: { readonly error: unknown } | undefined;

  constructor(readonly turns: Pick<Turns, "deferred">) {}

  /** How many wait. */
  get waiting(): number {
    return this.#waiting.size;
  }

  /** What becomes of `work`, while this is whole. @throws what it was broken with, and what `work` does. */
  guard<T>(work: Promise<T>): Promise<T> {
    const { promise, resolve, reject } = this.turns.deferred<T>();
    const end = (then: () => void) => {
      this.#waiting.delete(reject);
      then();
    };
    this.#waiting.add(reject);
    work.then((value) => end(() => resolve(value)), (error) => end(() => reject(error)));
    if (this.#broken) reject(this.#broken.error);
    return promise;
  }

  break(error: unknown): void {
    this.#broken ??= { error };
    for (const reject of this.#waiting) reject(error);
    this.#waiting.clear();
  }
}
