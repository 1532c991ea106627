import { deepEqual, equal, rejects } from "node:assert/strict";
import { DigestQuestions } from "../../../src/dataplane/digest_questions.ts";
import type { Range } from "../../../src/volume/mod.ts";
import { promiseTurns } from "../../support/promise_turns.ts";

/** A store whose answers are given by hand. */
function store() {
  const asked: { extents: Range[]; answer: PromiseWithResolvers<readonly string[]> }[] = [];
  const questions = new DigestQuestions((extents) => {
    const answer = Promise.withResolvers<readonly string[]>();
    asked.push({ extents, answer });
    return answer.promise;
  }, promiseTurns);
  const tell = (which: number) => {
    const { extents, answer } = asked[which] as typeof asked[number];
    answer.resolve(extents.map(({ at }) => `digest of ${at}`));
  };
  return { asked, questions, tell };
}

const range = (at: number): Range => ({ at, length: 1 });

Deno.test("DigestQuestions puts what is asked meanwhile into one question, and gives each its own digests", async () => {
  const { asked, questions, tell } = store();
  const answers = [[1], [2], [3, 4], [5], [6]].map((at) => questions.ask(at.map(range)));
  deepEqual(asked.map(({ extents }) => extents.length), [1, 1]);
  tell(0);
  await answers[0];
  deepEqual(asked[2]?.extents.map(({ at }) => at), [3, 4, 5, 6]);
  tell(1);
  tell(2);
  deepEqual(await Promise.all(answers), [
    ["digest of 1"],
    ["digest of 2"],
    ["digest of 3", "digest of 4"],
    ["digest of 5"],
    ["digest of 6"],
  ]);
});

Deno.test("DigestQuestions bounds what one question asks for", () => {
  const { asked, questions } = store();
  const many = Array.from({ length: 64 }, (_, at) => range(at));
  for (let i = 0; i < 4; i++) questions.ask(many);
  equal(asked.length, 2);
  deepEqual(asked.map(({ extents }) => extents.length), [64, 64]);
});

Deno.test("DigestQuestions tells all that went together of a failure, and goes on", async () => {
  const { asked, questions, tell } = store();
  const answers = [1, 2, 3, 4].map((at) => questions.ask([range(at)]));
  tell(0);
  tell(1);
  await answers[1];
  asked[2]?.answer.reject(new Error("away"));
  await rejects(answers[2] ?? Promise.resolve(), /away/);
  await rejects(answers[3] ?? Promise.resolve(), /away/);
  const next = questions.ask([range(9)]);
  tell(3);
  deepEqual(await next, ["digest of 9"]);
});
