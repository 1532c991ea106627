import assert from "node:assert/strict";
import {
  LATENCY_BUCKETS,
  latencyBucket,
  latencyBucketLimit,
  latencyQuantile,
  SIZE_BUCKETS,
  sizeBucket,
} from "../../../src/codec/mod.ts";

Deno.test("latencyBucket() puts every latency into the bucket whose limit is just above it", () => {
  for (const micros of [0, 1, 1.9, 7, 8, 100, 999, 12_345, 5_000_000, 60_000_000]) {
    const bucket = latencyBucket(micros);
    assert.ok(micros <= latencyBucketLimit(bucket), `${micros} is in ${bucket}`);
    if (micros > 1) assert.ok(micros >= latencyBucketLimit(bucket - 1), `${micros} in ${bucket}`);
  }
  assert.ok(latencyBucket(1e12) < LATENCY_BUCKETS);
});

Deno.test("latencyQuantile() is at most an eighth above the truth", () => {
  const counts = new Float64Array(LATENCY_BUCKETS);
  for (let micros = 1; micros <= 10_000; micros++) {
    const bucket = latencyBucket(micros);
    counts[bucket] = (counts[bucket] as number) + 1;
  }
  for (const quantile of [0.5, 0.9, 0.99, 1]) {
    const found = latencyQuantile(counts, quantile), truth = quantile * 10_000;
    assert.ok(found >= truth && found <= truth * 1.13, `${quantile}: ${found}`);
  }
  assert.equal(latencyQuantile(new Float64Array(LATENCY_BUCKETS), 0.99), 0);
});

Deno.test("sizeBucket() doubles from 512 bytes on", () => {
  assert.deepEqual([1, 512, 1023, 1024, 4096, 1 << 20].map(sizeBucket), [0, 0, 0, 1, 3, 11]);
  assert.equal(sizeBucket(2 ** 31 - 1), SIZE_BUCKETS - 1);
});
