/**
 * Asks an NBD server where an export holds data: one question at a time, each about a stretch, going on
 * where an answer stopped, until the whole range is told. Off the hot path, but for what the replies call.
 *
 * A connection that is lost meanwhile is waited for where operations are held too; otherwise, and where the
 * server cannot tell, the rest counts as data.
 */
import type { Deferred, Turns } from "../../core/mod.ts";
import type { Extent } from "../backend.ts";
import { DataRuns, StatusQuestion } from "./extents.ts";
import type { NbdLane } from "./lane.ts";
import { FRAMING } from "./offer.ts";
import type { NbdRequests } from "./requests.ts";

/** Stretches that one question is about: with 32-bit lengths, and with 64-bit ones. */
const STRETCH_BYTES_MAX = 2 ** 31, EXTENDED_STRETCH_BYTES_MAX = 2 ** 36;

/** What the questions need of their backend. */
export interface NbdStatusHost extends Pick<Turns, "deferred"> {
  /** The connection to ask by; undefined while there is none. */
  laneToAsk(): NbdLane | undefined;
  /** True while a connection that is not there is worth waiting for. */
  readonly holds: boolean;
  /** Resolves when connections have come or gone. */
  change(): Promise<void>;
  /** Something was sent at a tick of the watch, which then watches. @returns the tick. */
  watched(): number;
}

/** How a question ended: told in part or in whole, not to be told, or the connection went. */
type Ending = "told" | "refused" | "lost";

export class NbdStatus {
  #question: StatusQuestion | undefined;
  #ended: Deferred<Ending> | undefined;
  #turn: Promise<unknown> = Promise.resolve();

  constructor(readonly requests: NbdRequests, readonly host: NbdStatusHost) {}

  /** Runs of bytes that may hold something else than zeros, ascending, not overlapping. */
  dataExtents(from: number, length: number): Promise<readonly Extent[]> {
    const mine = this.#turn.then(() => this.#find(from, length));
    this.#turn = mine.catch(() => {});
    return mine;
  }

  async #find(from: number, length: number): Promise<readonly Extent[]> {
    const runs = new DataRuns(), end = from + length;
    for (let at = from; at < end;) {
      const lane = await this.#lane();
      if (lane?.offer.allocationId === undefined) return rest(runs, at, end);
      const extended = lane.offer.framing === FRAMING.extended;
      const stretch = extended ? EXTENDED_STRETCH_BYTES_MAX : STRETCH_BYTES_MAX;
      const question = new StatusQuestion(runs, at, Math.min(stretch, end - at));
      const ending = await this.#ask(lane, question);
      at += question.told;
      if (question.told === 0 && ending !== "lost") return rest(runs, at, end);
    }
    return runs.extents;
  }

  async #lane(): Promise<NbdLane | undefined> {
    for (;;) {
      const lane = this.host.laneToAsk();
      if (lane || !this.host.holds) return lane;
      await this.host.change();
    }
  }

  #ask(lane: NbdLane, question: StatusQuestion): Promise<Ending> {
    const { requests } = this, cookie = requests.statusCookie;
    const ended = this.host.deferred<Ending>();
    this.#question = question;
    this.#ended = ended;
    const generation = requests.begin(cookie, lane.index, question.piece, 0, this.host.watched());
    lane.queue(cookie, generation, question.piece);
    lane.flush();
    return ended.promise;
  }

  onExtent(length: number, flags: number): void {
    this.#question?.onExtent(length, flags);
  }

  /** @param error the server's, 0 for success. */
  onReply(error: number): void {
    this.#ended?.resolve(error === 0 ? "told" : "refused");
  }

  /** The connection of the question under way is gone. */
  onLost(): void {
    this.#ended?.resolve("lost");
  }
}

function rest(runs: DataRuns, at: number, end: number): readonly Extent[] {
  runs.add(at, end - at);
  return runs.extents;
}
