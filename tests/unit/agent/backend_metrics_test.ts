/** What Prometheus sees of backends. */
import assert from "node:assert/strict";
import { backendFamilies } from "../../../src/agent/backend_metrics.ts";
import type { VolumeStatus } from "../../../src/dataplane/mod.ts";

Deno.test("backendFamilies() has a sample a volume and kind, and none of volumes that are closed", () => {
  const latency_us = { mean: 1, p50: 2, p99: 3000, max: 4000 };
  const operations = [
    { operation: "read", count: 7, errors: 0, bytes: 4096, latency_us },
    { operation: "flush", count: 2, errors: 1, bytes: 0, latency_us },
  ];
  const status = { operations } as unknown as VolumeStatus;
  const families = backendFamilies([{ name: "a", status }, { name: "b", status: undefined }]);
  const values = families.map(({ name, samples }) => [name, samples.map(({ value }) => value)]);
  assert.deepEqual(values, [
    ["psma_backend_operations_total", [7, 2]],
    ["psma_backend_errors_total", [0, 1]],
    ["psma_backend_bytes_total", [4096, 0]],
    ["psma_backend_latency_p99_seconds", [0.003, 0.003]],
  ]);
  assert.deepEqual(families[0]?.samples[1]?.labels, { volume: "a", operation: "flush" });
});
