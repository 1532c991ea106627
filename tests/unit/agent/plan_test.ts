/** The planner: scenarios as a storage engineer would tell them, and laws that hold for any input. */
import { deepEqual, equal, match, ok } from "node:assert/strict";
import fc from "fast-check";
import { defaultScale, type ScaleConfig } from "../../../src/agent/config_volume.ts";
import { NO_MEMORY, type PlanInput, planVolume } from "../../../src/agent/plan.ts";
import type { MirrorState, MirrorStatus } from "../../../src/dataplane/mod.ts";
import type { Forecast } from "../../../src/forecast/mod.ts";

const MiB = 1024 ** 2;
const GiB = 1024 ** 3;
const NOW = Date.parse("2026-03-01T12:00:00Z");
const HOUR = 3_600_000;

/** Growth in a straight line at each level: bytes per hour at 50 % and at 95 %. */
function forecast(used: number, medianPerHour: number, upperPerHour: number): Forecast {
  const step_ms = HOUR / 4;
  return {
    volume: "data",
    metric: "used_bytes",
    origin_ms: NOW,
    step_ms,
    horizon_ms: 24 * HOUR,
    levels: [0.5, 0.95],
    steps: Array.from({ length: 96 }, (_, index) => ({
      at_ms: NOW + (index + 1) * step_ms,
      values: [medianPerHour, upperPerHour].map((rate) => used + rate * (index + 1) / 4),
    })),
    history_points: 500,
    model: [],
    backtest: { windows: 20, coverage80: 0.8, pinball: 1 },
    fit_ms: 1,
  };
}

function mirror(state: MirrorState, size_bytes = 20 * GiB): MirrorStatus {
  const backend = { type: "file", path: "/far/data" } as const;
  return {
    role: "scale",
    id: "m",
    state,
    target: { store: "far", store_volume: "data-1", size_bytes, backend },
    total_bytes: 5 * GiB,
    copied_bytes: 5 * GiB,
    compared_bytes: 0,
    equal_bytes: 0,
    changed_bytes: 0,
    dirty_bytes: 0,
    percent: 100,
    rate_bytes_per_s: 0,
    dirty_rate_bytes_per_s: 0,
    lag_ms: 0,
    eta_s: 0,
    eta_low_s: 0,
    eta_high_s: 0,
    eta_reason: null,
    scheduled: {
      next_round_at: null,
      floor_bytes_per_s: 0,
      ceiling_bytes_per_s: null,
      because: [],
    },
    rounds: 1,
    write_through: false,
    digests: { algorithm: "xxh3", checked: 1, mismatched: 0, unverified_bytes: 0 },
    verify: null,
  };
}

/** 10 GiB, 5 GiB used, measured 100 MiB/s: the lead time is about a minute. */
function input(changes: Partial<PlanInput> = {}, policy: Partial<ScaleConfig> = {}): PlanInput {
  const used_bytes = changes.used_bytes ?? 5 * GiB;
  return {
    volume: "data",
    now_ms: NOW,
    policy: { ...defaultScale(0.95), debounce_evaluations: 1, ...policy },
    horizon_ms: 24 * HOUR,
    size_bytes: 10 * GiB,
    max_size_bytes: 200 * GiB,
    usable_bytes: 10 * GiB,
    used_bytes,
    copy_bytes: used_bytes,
    forecast: forecast(used_bytes, 0, 0),
    mirror: null,
    measured: { sync_rate_bytes_per_s: 100 * MiB, provision_ms: 1000, switch_ms: 1000 },
    obstacle: null,
    memory: NO_MEMORY,
    ...changes,
  };
}

const planOf = (changes?: Partial<PlanInput>, policy?: Partial<ScaleConfig>) =>
  planVolume(input(changes, policy)).plan;

Deno.test("plan: a quiet volume is left alone", () => {
  const plan = planOf();
  equal(plan.action, "none");
  equal(plan.target_size_bytes, null);
  equal(plan.at, "2026-03-01T12:00:00.000Z");
  match(plan.because.join(" "), /5GiB of 10GiB are used \(50%\)\. .*does not fill/);
});

Deno.test("plan: the upper quantile at the lead time starts a mirror, the median would not", () => {
  const lead_h = (planOf().numbers["lead_ms"] ?? 0) / HOUR;
  const upper = 3.01 * GiB / lead_h;
  const plan = planOf({ forecast: forecast(5 * GiB, upper / 100, upper) });
  equal(plan.action, "mirror");
  equal(plan.target_size_bytes, 20 * GiB);
  match(plan.because[0] ?? "", /The 95% forecast reaches 8\.01GiB within the lead time of/);
  equal(planOf({ forecast: forecast(5 * GiB, upper, upper * 0.99) }).action, "none");
});

Deno.test("plan: a slower measured sync makes it begin earlier", () => {
  const slow = { sync_rate_bytes_per_s: 1 * MiB, provision_ms: 1000, switch_ms: 1000 };
  const growing = forecast(5 * GiB, 2 * GiB, 2.2 * GiB);
  equal(planOf({ forecast: growing }).action, "none");
  equal(planOf({ forecast: growing, measured: slow }).action, "mirror");
});

Deno.test("plan: above the threshold it scales, with or without a forecast", () => {
  for (const one of [null, forecast(8 * GiB, 0, 0)]) {
    const plan = planOf({ used_bytes: 8 * GiB, forecast: one });
    equal(plan.action, "scale");
    match(plan.because[0] ?? "", /8GiB are used: at or above the threshold of 80% \(8GiB\)/);
    equal(plan.target_size_bytes, 12.5 * GiB);
  }
});

Deno.test("plan: a forecast that was wrong, or is old, starts nothing by itself", () => {
  const steep = forecast(5 * GiB, 900 * GiB, 900 * GiB);
  equal(planOf({ forecast: steep }).action, "mirror");
  const wrong = { ...steep, backtest: { windows: 20, coverage80: 0.3, pinball: 1 } };
  const plan = planOf({ forecast: wrong });
  equal(plan.action, "none");
  match(plan.because.join(" "), /80% interval held only 30%/);
  const old = planOf({ forecast: { ...steep, origin_ms: NOW - 2 * HOUR } });
  equal(old.action, "none");
  match(old.because.join(" "), /forecast is 2h old/);
  equal(planOf({ forecast: wrong, used_bytes: 9 * GiB }).action, "scale");
});

Deno.test("plan: the forecast must agree several times in a row, and stays tripped near the threshold", () => {
  const policy = { debounce_evaluations: 3 };
  const steep = forecast(5 * GiB, 900 * GiB, 900 * GiB);
  const first = planVolume(input({ forecast: steep }, policy));
  equal(first.plan.action, "wait");
  match(first.plan.because[1] ?? "", /Seen 1 of 3/);
  const second = planVolume(input({ forecast: steep, memory: first.memory }, policy));
  equal(second.plan.action, "wait");
  const third = planVolume(input({ forecast: steep, memory: second.memory }, policy));
  equal(third.plan.action, "mirror");
  const calm = planVolume(input({ memory: second.memory }, policy));
  equal(calm.memory.mirror_trips, 0);
  // 7.8 GiB is below the threshold of 8 GiB, but not by 5 % of the volume.
  const flat = { used_bytes: 7.8 * GiB, forecast: forecast(7.8 * GiB, 0, 0) };
  equal(planVolume(input(flat, policy)).memory.mirror_trips, 0);
  equal(planVolume(input({ ...flat, memory: second.memory }, policy)).memory.mirror_trips, 3);
});

Deno.test("plan: a mirror under way is waited for, whatever the need", () => {
  for (const state of ["requested", "syncing", "switching"] as const) {
    equal(planOf({ mirror: mirror(state), used_bytes: 9.9 * GiB }).action, "wait");
  }
});

Deno.test("plan: a paused mirror is waited for, but not in silence while the volume fills up", () => {
  equal(planOf({ mirror: mirror("paused") }).action, "wait");
  const full = planOf({ mirror: mirror("paused"), used_bytes: 9.9 * GiB });
  equal(full.action, "blocked");
  match(full.because[0] ?? "", /at or above the threshold .* is paused: .* psma mirror resume/);
  const steep = { used_bytes: 7 * GiB, forecast: forecast(7 * GiB, 0, 9000 * GiB) };
  const soon = planOf({ mirror: mirror("paused"), ...steep });
  equal(soon.action, "blocked");
  match(soon.because[0] ?? "", /fills it within the .* is paused: /);
});

Deno.test("plan: a complete mirror waits, then is switched to when needed", () => {
  for (const state of ["tracking", "resyncing", "converging", "ready"] as const) {
    equal(planOf({ mirror: mirror(state) }).action, "wait");
    const plan = planOf({ mirror: mirror(state), used_bytes: 8.1 * GiB });
    equal(plan.action, "switch");
    equal(plan.target_size_bytes, 20 * GiB);
    const steep = forecast(7 * GiB, 0, 9000 * GiB);
    const soon = planOf({ mirror: mirror(state), used_bytes: 7 * GiB, forecast: steep });
    equal(soon.action, "switch");
    match(soon.because[0] ?? "", /fills it within the/);
  }
});

Deno.test("plan: a failed mirror is started again only when it is needed", () => {
  equal(planOf({ mirror: mirror("failed") }).action, "none");
  equal(planOf({ mirror: mirror("failed"), used_bytes: 8 * GiB }).action, "scale");
});

Deno.test("plan: at the cap it is blocked and says what to do; below it the last step is smaller", () => {
  const full = planOf({ used_bytes: 9 * GiB, max_size_bytes: 10 * GiB });
  equal(full.action, "blocked");
  equal(full.target_size_bytes, null);
  match(full.because.join(" "), /at its cap of 10GiB: raise max_size/);
  equal(planOf({ max_size_bytes: 10 * GiB }).action, "none");
  equal(planOf({ used_bytes: 9 * GiB, max_size_bytes: 11 * GiB }).target_size_bytes, 11 * GiB);
});

Deno.test("plan: nothing larger is made while the last growth has not arrived", () => {
  const obstacle = "The file system has not grown.";
  for (const one of [null, mirror("ready")]) {
    const plan = planOf({ used_bytes: 9 * GiB, mirror: one, obstacle });
    equal(plan.action, "blocked");
    equal(plan.because[1], obstacle);
  }
  equal(planOf({ obstacle }).action, "none");
});

Deno.test("plan: advise says what it would do and does not do it", () => {
  const plan = planOf({ used_bytes: 9 * GiB }, { approve: "advise" });
  equal(plan.action, "advise");
  equal(plan.target_size_bytes, 12.5 * GiB);
  match(plan.because.join(" "), /would scale now; the configuration says approve: advise/);
});

/** Scaled ten seconds ago. */
const JUST_SCALED = { ...NO_MEMORY, last_scale_at_ms: NOW - 10_000 };

Deno.test("plan: a cool-down damps the forecast, and lets the mirror begin a lead time before its end", () => {
  const hot = { memory: JUST_SCALED, forecast: forecast(5 * GiB, 0, 9000 * GiB) };
  const early = planOf(hot, { cooldown_ms: HOUR });
  equal(early.action, "wait");
  match(early.because.join(" "), /cool-down after the last scaling event lasts 59m 50s more/);
  equal(planOf(hot, { cooldown_ms: 20_000 }).action, "mirror");
  equal(planOf({ ...hot, mirror: mirror("ready") }, { cooldown_ms: 20_000 }).action, "wait");
  equal(planOf({ ...hot, mirror: mirror("ready") }, { cooldown_ms: 10_000 }).action, "switch");
});

Deno.test("plan: a volume that is filling up is not held back by its cool-down", () => {
  for (const one of [null, forecast(8.5 * GiB, GiB, 2 * GiB)]) {
    const full = { used_bytes: 8.5 * GiB, memory: JUST_SCALED, forecast: one };
    const begun = planOf(full, { cooldown_ms: HOUR });
    equal(begun.action, "scale");
    match(begun.because.join(" "), /at or above the threshold.* cool-down has 59m 50s left, but/);
    equal(planOf({ ...full, mirror: mirror("failed") }, { cooldown_ms: HOUR }).action, "scale");
    const switched = planOf({ ...full, mirror: mirror("tracking") }, { cooldown_ms: HOUR });
    equal(switched.action, "switch");
    match(switched.because.join(" "), /cool-down has 59m 50s left/);
  }
});

Deno.test("plan: a volume that fills without a pause is scaled each time before it is full", () => {
  const RATE_BYTES_PER_MIN = 0.2 * GiB;
  let [size, used, now] = [10 * GiB, 5 * GiB, NOW];
  let memory = NO_MEMORY;
  for (let minute = 0; minute < 24 * 60 && size < 200 * GiB; minute++) {
    now += 60_000;
    used += RATE_BYTES_PER_MIN;
    ok(used < size, `full after ${minute} minutes at ${size / GiB} GiB`);
    const { plan, memory: next } = planVolume(input({
      now_ms: now,
      size_bytes: size,
      usable_bytes: size,
      used_bytes: used,
      forecast: null,
      memory,
    }));
    memory = next;
    if (plan.action !== "scale") continue;
    size = plan.target_size_bytes ?? 0;
    memory = { ...memory, last_scale_at_ms: now };
  }
  equal(size, 200 * GiB);
});

Deno.test("plan: file system overhead is added to the target", () => {
  const plain = planOf({ used_bytes: 9 * GiB, usable_bytes: 10 * GiB }, { step: 0.01 });
  const fat = planOf({ used_bytes: 9 * GiB, usable_bytes: 9.5 * GiB }, { step: 0.01 });
  ok((fat.target_size_bytes ?? 0) > (plain.target_size_bytes ?? 0));
});

const anyState = fc.constantFrom<MirrorState | undefined>(
  undefined,
  "requested",
  "syncing",
  "tracking",
  "ready",
  "switching",
  "paused",
  "failed",
);

const anyInput = fc.record({
  size: fc.integer({ min: 1, max: 100_000 }),
  headroom: fc.integer({ min: 0, max: 100_000 }),
  usedShare: fc.double({ min: 0, max: 1, noNaN: true }),
  growth: fc.double({ min: -1, max: 1000, noNaN: true }),
  state: anyState,
  since: fc.option(fc.integer({ min: 0, max: 10 * HOUR })),
  cooldown: fc.integer({ min: 0, max: 5 * HOUR }),
  step: fc.double({ min: 0.01, max: 3, noNaN: true }),
  threshold: fc.double({ min: 0.06, max: 1, noNaN: true }),
  approve: fc.constantFrom("auto" as const, "advise" as const),
}).map((any) => {
  const size_bytes = any.size * MiB;
  const used_bytes = Math.floor(any.usedShare * size_bytes);
  return input({
    size_bytes,
    max_size_bytes: size_bytes + any.headroom * MiB,
    usable_bytes: size_bytes,
    used_bytes,
    forecast: forecast(used_bytes, any.growth * GiB / 2, any.growth * GiB),
    mirror: any.state === undefined
      ? null
      : mirror(any.state, size_bytes + Math.floor(any.headroom / 2) * MiB),
    memory: { ...NO_MEMORY, last_scale_at_ms: any.since === null ? null : NOW - any.since },
  }, {
    cooldown_ms: any.cooldown,
    step: any.step,
    max_step: Math.max(1, any.step),
    threshold: any.threshold,
    approve: any.approve,
  });
});

Deno.test("plan law: never above the cap, never a shrink, and a target only with an action", () => {
  fc.assert(fc.property(anyInput, (one) => {
    const { plan } = planVolume(one);
    const target = plan.target_size_bytes;
    if (target === null) return ["none", "wait", "blocked"].includes(plan.action);
    return target >= one.size_bytes && target <= one.max_size_bytes;
  }));
});

Deno.test("plan law: within the cool-down nothing changes size unless the measured use asks for it", () => {
  fc.assert(fc.property(anyInput, (one) => {
    const { plan } = planVolume(one);
    const cooling = (plan.numbers["cooldown_remaining_ms"] ?? 0) > 0;
    const full = one.used_bytes >= one.policy.threshold * one.usable_bytes;
    return !cooling || full || !["scale", "switch"].includes(plan.action);
  }));
});

Deno.test("plan law: at the threshold, a cool-down changes nothing about what is done", () => {
  fc.assert(fc.property(anyInput, fc.integer({ min: 0, max: HOUR }), (one, since) => {
    const used_bytes = Math.max(one.used_bytes, one.policy.threshold * one.usable_bytes);
    const at = (last_scale_at_ms: number | null) =>
      planVolume({ ...one, used_bytes, memory: { ...NO_MEMORY, last_scale_at_ms } }).plan.action;
    equal(at(NOW - since), at(null));
  }));
});

Deno.test("plan law: the same input gives the same answer, and planning it again changes nothing", () => {
  fc.assert(fc.property(anyInput, (one) => {
    const before = structuredClone(one);
    const first = planVolume(one);
    deepEqual(planVolume(one), first);
    deepEqual(one, before);
    ok(first.plan.because.length > 0);
    ok(Object.values(first.plan.numbers).every((n) => n === null || Number.isFinite(n)));
    for (const [name, value] of Object.entries(first.plan.numbers)) {
      ok(value === null || !/_(bytes|ms)$/.test(name) || Number.isInteger(value), name);
    }
  }));
});

Deno.test("plan law: more need never means a smaller target or less urgency", () => {
  const urgency = { none: 0, wait: 1, mirror: 2, scale: 3, switch: 3, advise: 3, blocked: 3 };
  const more = fc.double({ min: 0, max: 100, noNaN: true });
  fc.assert(fc.property(anyInput, more, (one, extra) => {
    const used = one.used_bytes;
    const at = (rate: number) =>
      planVolume({ ...one, mirror: null, forecast: forecast(used, 0, rate * GiB) }).plan;
    const [low, high] = [at(extra / 2), at(extra)];
    ok((low.numbers["target_bytes"] ?? 0) <= (high.numbers["target_bytes"] ?? 0));
    ok(urgency[low.action] <= urgency[high.action]);
  }));
});
