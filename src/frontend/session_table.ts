/** The exports of one frontend on a data-plane thread, found by the index that completions and slots carry. */
import { need } from "../core/mod.ts";

export class SessionTable<Session> {
  readonly #sessions: (Session | undefined)[] = [];
  #first = 0;

  /** @param what one of them is, for the message of a broken invariant. */
  constructor(readonly what: string) {}

  /** @returns the export's index: the lowest that is free. */
  add(session: Session): number {
    const free = this.#sessions.indexOf(undefined);
    const index = free < 0 ? this.#sessions.length : free;
    this.#sessions[index] = session;
    return index;
  }

  remove(index: number): void {
    this.#sessions[index] = undefined;
  }

  /** Hot path. */
  at(index: number): Session {
    return need(this.#sessions[index], this.what);
  }

  /**
   * Hot path. Visits all, beginning with another one each time, so that one cannot take every slot that becomes
   * free.
   */
  visitAll(visit: (session: Session) => void): void {
    const sessions = this.#sessions, count = sessions.length;
    if (count === 0) return;
    this.#first = (this.#first + 1) % count;
    for (let i = 0; i < count; i++) {
      const session = sessions[(this.#first + i) % count];
      if (session !== undefined) visit(session);
    }
  }
}
