/**
 * Lost bytes are told once by who lost them (Linux: once for each open file), and the mirror's own flushes of the
 * active side may be told in the application's place. So an application's flush that overlaps one of those is
 * answered after it and fails with it; where none overlaps, the next one fails.
 */
import type { Requests } from "./requests.ts";

export class FlushFaults {
  /** What the application has not been told; 0 for nothing. */
  #errno = 0;
  #underWay = 0;
  /** Rises when another side becomes the active one. */
  #round = 0;
  #held: number[] = [];

  /** @param finish answers an application's flush. */
  constructor(
    readonly requests: Pick<Requests, "errno">,
    readonly finish: (slot: number) => void,
  ) {}

  /** The errno that a new flush of the application's fails with at once; 0: none. */
  take(): number {
    const errno = this.#errno;
    this.#errno = 0;
    return errno;
  }

  /** The mirror flushes the active side. @returns what `ended` is to be called with. */
  begun(): number {
    this.#underWay++;
    return this.#round;
  }

  ended(round: number, errno: number): void {
    if (round !== this.#round) return;
    this.#underWay--;
    if (errno !== 0) this.#errno = errno;
    if (this.#underWay === 0) this.#release();
  }

  /** Hot path. A flush of the application's is done. @returns true when it is answered later. */
  holds(slot: number): boolean {
    if (this.#underWay > 0) {
      this.#held.push(slot);
      return true;
    }
    if (this.requests.errno[slot] === 0) this.requests.errno[slot] = this.take();
    return false;
  }

  /** Another side is the active one now, and has all that the application wrote. */
  forget(): void {
    this.#round++;
    this.#errno = this.#underWay = 0;
    this.#release();
  }

  #release() {
    const held = this.#held;
    if (held.length === 0) return;
    this.#held = [];
    const errno = this.take();
    for (const slot of held) {
      if (this.requests.errno[slot] === 0) this.requests.errno[slot] = errno;
      this.finish(slot);
    }
  }
}
