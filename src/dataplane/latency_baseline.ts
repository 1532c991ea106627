/** The application's requests as they were before a mirror asked anything of them, over the last minute. */
import type { Clock } from "../core/mod.ts";
import { type ApplicationLoad, LoadMark, type Mirror } from "../mirror/mod.ts";
import type { Counters } from "../volume/mod.ts";

const MARKS = 60;
/** Fewer say nothing about a 99th percentile. */
const ENOUGH_REQUESTS = 200;

export class LatencyBaseline {
  #p99 = 0;
  readonly #marks: LoadMark[] = [];

  constructor(readonly counters: Counters, readonly clock: Pick<Clock, "monotonicMs">) {
    this.keepSnapshot();
  }

  /** Microseconds, as last taken; 0 when it never was. */
  get p99(): number {
    return this.#p99;
  }

  /** Remembers the histogram of now: call it once a second. */
  keepSnapshot(): void {
    this.#marks.push(new LoadMark(this.counters, this.clock.monotonicMs()));
    if (this.#marks.length > MARKS) this.#marks.shift();
  }

  /** The load until now; undefined when the application was not seen at work. */
  load(): ApplicationLoad | undefined {
    const load = this.#marks[0]?.until(this.clock.monotonicMs());
    return load === undefined || load.requests < ENOUGH_REQUESTS ? undefined : load;
  }

  /** Takes the 99th percentile, unless the mirror is in the way of writes already. */
  takeBefore(mirror: Mirror): void {
    if (mirror.state === "ready" || mirror.state === "converging") return;
    this.#p99 = this.#marks[0]?.until(this.clock.monotonicMs()).p99Micros ?? 0;
  }
}
