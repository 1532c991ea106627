/** The simulator finds known bugs: each is planted alone, and must be found within so many seeds. */
import assert from "node:assert/strict";
import { loadDigest } from "../../src/mirror/mod.ts";
import { PLANTS, QUICK_PLANTS } from "./plants.ts";
import { Simulation } from "./simulation.ts";

const FOUND_WITHIN_SEEDS = 300;

const isQuick = Deno.env.get("PSMA_TEST_QUICK") === "1";

for (const { name, faults, plant } of isQuick ? PLANTS.slice(0, QUICK_PLANTS) : PLANTS) {
  Deno.test(`the simulator finds it when ${name}`, async () => {
    const digest = await loadDigest();
    for (let seed = 1; seed <= FOUND_WITHIN_SEEDS; seed++) {
      const simulation = new Simulation(seed, digest, { faults });
      const takeOut = plant(simulation);
      try {
        const { failure } = await simulation.run();
        if (failure !== undefined) return;
      } finally {
        takeOut();
      }
    }
    assert.fail(`not found within ${FOUND_WITHIN_SEEDS} seeds`);
  });
}
