import { equal, ok } from "node:assert/strict";
import { seededRng } from "../../../src/core/mod.ts";
import { RateMeter } from "../../../src/mirror/rate_meter.ts";

Deno.test("RateMeter forgets what is older than its span", () => {
  const meter = new RateMeter(1000);
  equal(meter.bytesPerSecond, null);
  meter.add(500, 5000);
  equal(meter.bytesPerSecond, 10_000);
  meter.add(500, 0);
  equal(meter.bytesPerSecond, 5000);
  meter.add(500, 0);
  equal(meter.bytesPerSecond, 0);
  meter.clear();
  equal(meter.bytesPerSecond, null);
});

Deno.test("RateMeter.deviation() knows nothing of too little, and of a steady rate that it is steady", () => {
  const meter = new RateMeter(10_000);
  for (let i = 0; i < 3; i++) meter.add(100, 1000);
  equal(meter.deviation(1000), null);
  meter.add(100, 1000);
  equal(meter.deviation(1000), 0);
});

Deno.test("RateMeter.deviation() is the error of the mean that then came, for independent slices", () => {
  const rng = seededRng(1);
  const slice = () => 1000 + 2000 * rng.float();
  let squares = 0, predicted = 0;
  const trials = 2000;
  for (let i = 0; i < trials; i++) {
    const meter = new RateMeter(4000);
    for (let j = 0; j < 40; j++) meter.add(100, slice());
    let later = 0;
    for (let j = 0; j < 20; j++) later += slice();
    squares += (later / 2 - (meter.bytesPerSecond ?? 0)) ** 2;
    predicted += (meter.deviation(2000) ?? 0) ** 2;
  }
  const ratio = Math.sqrt(predicted / squares);
  ok(ratio > 0.9 && ratio < 1.35, `predicted over actual error: ${ratio}`);
});
