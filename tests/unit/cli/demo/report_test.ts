/** The demo's verdict: it holds only when every fact was measured, and none of them is bad. */
import { deepEqual, equal } from "node:assert/strict";
import type { VolumeView } from "../../../../src/api/client.ts";
import { faultsOf, type Observed, reportOf } from "../../../../src/cli/demo/report.ts";

const MIB = 1024 ** 2;

const CUTOVER: NonNullable<VolumeView["last_cutover"]> = {
  epoch: 2,
  at: "2026-01-01T00:00:30.000Z",
  io_errors: 0,
  held_us_max: 0,
  latency_us: { baseline_p99: 900, window_p99: 1100, window_max: 4000 },
  size_before_bytes: 320 * MIB,
  size_after_bytes: 640 * MIB,
  copied_bytes: 200 * MIB,
  changed_bytes: 20 * MIB,
  digests_checked: 900,
  digest_mismatches: 0,
};

function view(more: Partial<VolumeView>): VolumeView {
  return {
    name: "data",
    state: "attached",
    size_bytes: 320 * MIB,
    max_size_bytes: 1024 * MIB,
    epoch: 1,
    active: { store: "near", backend: "file", uri: "", operations: [] },
    backup: null,
    exports: [],
    filesystem: null,
    used_bytes: 0,
    used_source: "allocated",
    mirror: null,
    last_cutover: null,
    time_to_full: null,
    ...more,
  };
}

/** A demo in which all went well. */
const GOOD: Observed = {
  frontend: "nbd",
  before: view({}),
  after: view({ size_bytes: 640 * MIB, epoch: 2, last_cutover: CUTOVER }),
  prediction: {
    level: 0.95,
    at_ms: 1,
    ahead_ms: 1,
    upper_bytes: 300 * MIB,
    median_bytes: 250 * MIB,
    actual_bytes: 260 * MIB,
  },
  tripped: {
    id: 1,
    at: "2026-01-01T00:00:10.000Z",
    type: "forecast.tripped",
    severity: "info",
    volume: "data",
    message: "",
    data: { used_bytes: 100, threshold_bytes: 200 },
  },
  verdict: {
    files: 20,
    bytes: 200 * MIB,
    mismatches: 0,
    sqlite_ok: true,
    capacity_bytes: 640 * MIB,
  },
  latency: {
    before: { count: 1, p99_us: 1, max_us: 1 },
    around: { count: 1, p99_us: 1, max_us: 1 },
  },
  took_ms: 60_000,
};

function faults(observed: Observed): readonly string[] {
  const report = reportOf(observed);
  const found = faultsOf(report, observed);
  equal(report.ok, found.length === 0);
  return found;
}

function withCutover(more: Partial<typeof CUTOVER>): Observed {
  return { ...GOOD, after: { ...GOOD.after, last_cutover: { ...CUTOVER, ...more } } };
}

Deno.test("faultsOf() finds none in a demo that went well", () => {
  deepEqual(faults(GOOD), []);
});

Deno.test("faultsOf() takes no missing measurement for a good one", () => {
  const { latency_us } = CUTOVER;
  const cases: [Observed, string][] = [
    [
      withCutover({ latency_us: { ...latency_us, baseline_p99: 0 } }),
      "no latency was measured before the cutover",
    ],
    [
      withCutover({ latency_us: { ...latency_us, window_max: 0 } }),
      "no latency was measured around the cutover",
    ],
    [withCutover({ digests_checked: 0 }), "no digest was checked"],
    [withCutover({ copied_bytes: 0 }), "nothing was copied"],
    [withCutover({ epoch: 1 }), "the epoch did not rise"],
    [
      { ...GOOD, prediction: { ...GOOD.prediction, actual_bytes: null } },
      "what was predicted was not measured",
    ],
    [{ ...GOOD, prediction: { ...GOOD.prediction, upper_bytes: 0 } }, "nothing was predicted"],
    [{ ...GOOD, tripped: null }, "the forecast did not trip before the threshold was passed"],
    [{ ...GOOD, verdict: { ...GOOD.verdict, files: 0 } }, "the application wrote nothing"],
  ];
  for (const [observed, fault] of cases) deepEqual(faults(observed), [fault]);
});

Deno.test("faultsOf() tells everything that a demo without a switch lacks", () => {
  deepEqual(faults({ ...GOOD, after: GOOD.before }), [
    "the volume was not switched",
    "the volume did not grow",
    "the epoch did not rise",
    "no latency was measured before the cutover",
    "no latency was measured around the cutover",
    "nothing was copied",
    "no digest was checked",
  ]);
});

Deno.test("faultsOf() tells what is wrong with the bytes", () => {
  deepEqual(faults(withCutover({ io_errors: 1, digest_mismatches: 2 })), [
    "the cutover caused I/O errors",
    "digests of copied extents did not match",
  ]);
  deepEqual(faults({ ...GOOD, verdict: { ...GOOD.verdict, mismatches: 1, sqlite_ok: false } }), [
    "content was not what had been written",
    "the database is damaged",
  ]);
});
