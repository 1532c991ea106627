import assert from "node:assert/strict";
import { nextRate } from "../../../src/mirror/pace.ts";

const MIB = 2 ** 20;
const calm = { rate: 100 * MIB, ceiling: 1e12, requests: 500, meanMicros: 100, baselineMicros: 90 };

Deno.test("nextRate() climbs while the application is as fast as before", () => {
  assert.ok(nextRate(calm) > calm.rate);
});

Deno.test("nextRate() backs off when the application slows down, but not below the floor", () => {
  const slowed = { ...calm, meanMicros: 2000 };
  assert.ok(nextRate(slowed) < calm.rate);
  let rate = calm.rate;
  for (let i = 0; i < 50; i++) rate = nextRate({ ...slowed, rate });
  assert.equal(rate, 8 * MIB);
});

Deno.test("nextRate() leaves everything to the copier when the application is idle", () => {
  assert.equal(nextRate({ ...calm, requests: 0, meanMicros: 0 }), 2 * calm.rate);
});

Deno.test("nextRate() never exceeds the ceiling, not even by the floor", () => {
  assert.equal(nextRate({ ...calm, ceiling: MIB }), MIB);
  assert.equal(nextRate({ ...calm, requests: 0, ceiling: 120 * MIB }), 120 * MIB);
});
