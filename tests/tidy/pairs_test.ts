/** The arithmetic behind every published ratio. */
import { deepEqual, equal, rejects } from "node:assert/strict";
import { type Contestant, measureTurns, median, type Turns } from "../bench/pairs.ts";

function contestant(name: string, figures: number[], log: string[]): Contestant<number> {
  return {
    name,
    run() {
      log.push(name);
      return Promise.resolve(figures.shift() ?? NaN);
    },
  };
}

function turnsOf(ours: number[], peers: number[][], log: string[] = []): Turns<number> {
  return {
    figures: [{ work: "w", unit: "IOPS", better: "higher", of: (sample) => sample }],
    rounds: 3,
    ours: contestant("A", ours, log),
    peers: peers.map((figures, index) => contestant("BCD"[index] ?? "", figures, log)),
  };
}

Deno.test("measureTurns() warms up, then each round begins with another one", async () => {
  const log: string[] = [];
  const results = await measureTurns(
    turnsOf([999, 10, 30, 20], [[1, 10, 10, 20], [1, 20, 60, 40]], log),
  );
  equal(log.join(""), "ABC" + "ABC" + "BCA" + "CAB");
  const result = { work: "w", ours: 20, unit: "IOPS", better: "higher", rounds: 3 } as const;
  deepEqual(results, [
    // Of the rounds' ratios 1, 3, 1.
    { ...result, peer: 10, peer_name: "B", ratio: 2, spread: 2 },
    { ...result, peer: 40, peer_name: "C", ratio: 0.5, spread: 0 },
  ]);
});

Deno.test("measureTurns() refuses figures that cannot be", async () => {
  await rejects(measureTurns(turnsOf([1, 0], [[1, 1]])), /A gave 0 IOPS/);
  await rejects(measureTurns(turnsOf([1], [[Infinity]])), /B gave Infinity IOPS/);
  await rejects(measureTurns({ ...turnsOf([], [[]]), rounds: 0 }), /0 is not a number of rounds/);
});

Deno.test("measureTurns() leaves out what a side never had, and rounds in which one of the two had it not", async () => {
  const log: string[] = [];
  const some = (figures: number[]) => (sample: number) =>
    figures.includes(sample) ? undefined : sample;
  const turns = turnsOf([10, 20, 30], [[1, 2, 3], [10, 20, 10]], log);
  const figures = [{ work: "w", unit: "s", better: "lower", of: some([1, 2, 3, 20]) } as const];
  const results = await measureTurns({ ...turns, figures, warmUp: false });
  equal(log.join(""), "ABC" + "BCA" + "CAB");
  const result = { work: "w", unit: "s", better: "lower" } as const;
  const peer = { peer: 10, peer_name: "C", ratio: 2, spread: 1, rounds: 2 };
  deepEqual(results, [{ ...result, ours: 20, ...peer }]);
});

Deno.test("measureTurns() ends between two runs when interrupted", async () => {
  const log: string[] = [];
  const interrupted = new AbortController();
  const turns = turnsOf([1, 1, 1], [], log);
  const ours: Contestant<number> = {
    name: "A",
    run() {
      if (log.length === 1) interrupted.abort(new Error("interrupted"));
      return turns.ours.run();
    },
  };
  await rejects(measureTurns({ ...turns, ours, signal: interrupted.signal }), /interrupted/);
  equal(log.join(""), "AA");
});

Deno.test("median() of odd, even and no figures", () => {
  deepEqual([median([3, 1, 2]), median([4, 1, 3, 2]), median([])], [2, 2.5, NaN]);
});
