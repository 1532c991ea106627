/** Chance: replayable where a seed is given, inside its bounds everywhere. */
import { deepEqual, equal, match, notDeepEqual, ok } from "node:assert/strict";
import { type Rng, seededRng, systemRng } from "../../../src/core/rng.ts";

const draw = (rng: Rng) => [rng.float(), rng.below(1000), rng.hex(4), rng.float()];

Deno.test("seededRng() replays from its seed, and differs between seeds", () => {
  deepEqual(draw(seededRng(42)), draw(seededRng(42)));
  notDeepEqual(draw(seededRng(42)), draw(seededRng(43)));
});

Deno.test("seededRng() is Mulberry32", () => {
  // First outputs of the reference implementation (bryc, public domain) for seed 0.
  const rng = seededRng(0);
  deepEqual([rng.float(), rng.float()], [0.26642920868471265, 0.0003297457005828619]);
});

for (const [name, rng] of [["seededRng", seededRng(7)], ["systemRng", systemRng]] as const) {
  Deno.test(`${name} stays inside its bounds and reaches both ends`, () => {
    const seen = new Set<number>();
    let low = 0;
    for (let i = 0; i < 4000; i++) {
      const float = rng.float();
      ok(float >= 0 && float < 1);
      if (float < 0.5) low++;
      seen.add(rng.below(4));
    }
    deepEqual([...seen].sort(), [0, 1, 2, 3]);
    ok(low > 1700 && low < 2300, `${low} of 4000 below one half`);
    match(rng.hex(16), /^[0-9a-f]{32}$/);
    equal(rng.hex(0), "");
  });
}
