/** Questions from the data-plane thread to the main thread, as promises that the reactor wakes up for. */
import { PsmaError } from "../core/mod.ts";
import type { Reactor } from "../sys/mod.ts";
import type { AllQuestions, FromWorker, Outcome, QuestionName } from "./messages.ts";

const LIMIT_MS = 30_000;

export type Ask = <Name extends QuestionName>(
  name: Name,
  argument: AllQuestions[Name]["argument"],
) => Promise<AllQuestions[Name]["answer"]>;

export class Questioner {
  readonly #waiting = new Map<number, (outcome: Outcome<unknown>) => void>();
  #seq = 0;

  constructor(
    readonly reactor: Pick<Reactor, "alarm" | "deferred">,
    readonly post: (message: FromWorker) => void,
  ) {}

  /** @throws {PsmaError} what the store said, or timeout/store after 30 s. */
  readonly ask: Ask = async (name, argument) => {
    const seq = ++this.#seq;
    const { promise, resolve } = this.reactor.deferred<Outcome<unknown>>();
    this.#waiting.set(seq, resolve);
    this.post({ kind: "question", seq, name, argument });
    // Cancelled with the answer: a gate asks a thousand times a second, and the ring holds so many timers only.
    const alarm = this.reactor.alarm(LIMIT_MS);
    const late = alarm.over.then((): Outcome<unknown> => ({
      ok: false,
      error: {
        code: "timeout/store",
        message: `Cannot ask the store for ${name}: no answer within ${LIMIT_MS / 1000} s`,
      },
    }));
    const outcome = await Promise.race([promise, late]);
    this.#waiting.delete(seq);
    alarm.cancel();
    if (!outcome.ok) throw PsmaError.fromRecord(outcome.error);
    return outcome.value as AllQuestions[typeof name]["answer"];
  };

  answered(seq: number, outcome: Outcome<unknown>): void {
    this.#waiting.get(seq)?.(outcome);
  }
}
