/**
 * Questions for digests, put together: each costs both sides some milliseconds of a processor, however few extents
 * it names. Two are under way at most; what is asked meanwhile goes with the next one.
 */
import type { Deferred, Turns } from "../core/mod.ts";
import type { Range } from "../volume/mod.ts";

const UNDER_WAY_MAX = 2;
/** A question asks for no more once it has this many. */
const EXTENTS_ENOUGH = 128;

interface Question {
  readonly extents: readonly Range[];
  readonly answer: Deferred<readonly string[]>;
}

export class DigestQuestions {
  #waiting: Question[] = [];
  #underWay = 0;

  constructor(
    readonly put: (extents: Range[]) => Promise<readonly string[]>,
    readonly turns: Pick<Turns, "deferred">,
  ) {}

  /** @returns one digest per extent, in order. @throws what the store said to the question that it went with. */
  ask(extents: readonly Range[]): Promise<readonly string[]> {
    const answer = this.turns.deferred<readonly string[]>();
    this.#waiting.push({ extents, answer });
    this.#next();
    return answer.promise;
  }

  #next() {
    while (this.#underWay < UNDER_WAY_MAX && this.#waiting.length > 0) {
      let enough = 0;
      for (let extents = 0; enough < this.#waiting.length && extents < EXTENTS_ENOUGH; enough++) {
        extents += this.#waiting[enough]?.extents.length ?? 0;
      }
      this.#put(this.#waiting.splice(0, enough));
    }
  }

  async #put(questions: readonly Question[]) {
    this.#underWay++;
    try {
      const digests = await this.put(questions.flatMap(({ extents }) => extents));
      let from = 0;
      for (const { extents, answer } of questions) {
        answer.resolve(digests.slice(from, from += extents.length));
      }
    } catch (error) {
      for (const { answer } of questions) answer.reject(error);
    } finally {
      this.#underWay--;
      this.#next();
    }
  }
}
