/** The arithmetic behind every published ratio. */
import { deepEqual, equal, rejects } from "node:assert/strict";
import { measurePair, median, type Pair } from "../bench/pairs.ts";

function pairOf(ours: number[], peer: number[], log: string[] = []): Pair {
  const take = (side: string, figures: number[]) => () => {
    log.push(side);
    return figures.shift() ?? NaN;
  };
  return {
    work: "w",
    peer_name: "p",
    unit: "IOPS",
    better: "higher",
    rounds: 3,
    ours: take("A", ours),
    peer: take("B", peer),
  };
}

Deno.test("measurePair() takes turns after one round that does not count", async () => {
  const turns: string[] = [];
  const result = await measurePair(pairOf([999, 10, 30, 20], [1, 10, 10, 20], turns));
  equal(turns.join(""), "ABABABAB");
  deepEqual(result, {
    work: "w",
    ours: 20,
    peer: 10,
    peer_name: "p",
    unit: "IOPS",
    better: "higher",
    ratio: 2,
    spread: 2, // of the rounds' ratios 1, 3, 1
    rounds: 3,
  });
});

Deno.test("measurePair() refuses figures that cannot be", async () => {
  await rejects(measurePair(pairOf([1, 0], [1, 1])), /ours gave 0 IOPS/);
  await rejects(measurePair(pairOf([1], [Infinity])), /peer gave Infinity IOPS/);
  await rejects(measurePair({ ...pairOf([], []), rounds: 0 }), /0 is not a number of rounds/);
});

Deno.test("median() of odd, even and no figures", () => {
  deepEqual([median([3, 1, 2]), median([4, 1, 3, 2]), median([])], [2, 2.5, NaN]);
});
