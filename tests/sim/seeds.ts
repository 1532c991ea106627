/** Registers a test that runs many seeds and names those that failed. */
import assert from "node:assert/strict";
import { loadDigest } from "../../src/mirror/mod.ts";
import { Simulation } from "./simulation.ts";
import { Totals } from "./totals.ts";

const isQuick = Deno.env.get("PSMA_TEST_QUICK") === "1";

/** @param quick,full how many seeds the quick run and the full one take. */
export function simulateSeeds({ first, quick, full }: {
  first: number;
  quick: number;
  full: number;
}): void {
  const count = isQuick ? quick : full;
  Deno.test(`${count} seeds from ${first} on lose nothing and come to rest`, async () => {
    const digest = await loadDigest(), total = new Totals(), failed: string[] = [];
    for (let seed = first; seed < first + count; seed++) {
      const outcome = await new Simulation(seed, digest).run();
      total.add(outcome);
      if (outcome.failure !== undefined) failed.push(`seed ${seed}: ${outcome.failure}`);
    }
    const replay = "replay one with: deno task sim --seed SEED";
    assert.deepEqual(failed, [], `${failed.join("\n")}\n${total.text()}\n${replay}`);
    assert.ok(total.switches > count, "hardly anything was switched");
    assert.ok(total.withLog > count / 20, "hardly a mirror was opened after a power loss");
    assert.ok(total.doubtedShare < 0.9, `a power loss left ${total.doubtedShare} in doubt`);
  });
}
