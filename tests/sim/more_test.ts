/** The other half of the seeds, and that a seed is a life: run twice, it is the same to the last step. */
import assert from "node:assert/strict";
import { loadDigest } from "../../src/mirror/mod.ts";
import { simulateSeeds } from "./seeds.ts";
import { Simulation } from "./simulation.ts";

simulateSeeds({ first: 100_001, quick: 50, full: 1000 });

Deno.test("a seed run twice is the same to the last step, and another one is not", async () => {
  const digest = await loadDigest();
  const hashOf = async (seed: number) => (await new Simulation(seed, digest).run()).hash;
  for (const seed of [3, 466, 615]) assert.equal(await hashOf(seed), await hashOf(seed));
  assert.notEqual(await hashOf(1), await hashOf(2));
});
