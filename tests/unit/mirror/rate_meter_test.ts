import { equal } from "node:assert/strict";
import { RateMeter } from "../../../src/mirror/rate_meter.ts";

Deno.test("RateMeter gives bytes per second between looks that are far enough apart", () => {
  let now = 10_000;
  const meter = new RateMeter({
    nowMs: () => now,
    monotonicMs: () => now,
    sleep: () => Promise.resolve(),
  });
  meter.measure(0);
  now += 500;
  equal(meter.measure(1000), 2000);
  now += 100;
  equal(meter.measure(9000), 2000);
  now += 100;
  equal(meter.measure(9000), 40_000);
  now += 60_001;
  equal(meter.measure(10_000), 0);
});
