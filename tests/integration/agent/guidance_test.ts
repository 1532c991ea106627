/** A real agent with a real forecaster: what is predicted and what an operator wants reaches the mirror's schedule. */
import { deepEqual, equal, match, ok } from "node:assert/strict";
import { parseConfig, type RunningAgent, startAgent } from "../../../src/agent/mod.ts";
import { silentLog, systemClock, systemRng } from "../../../src/core/mod.ts";
import { DataPlane } from "../../../src/dataplane/mod.ts";
import { type Metric, openForecaster, type Sample } from "../../../src/forecast/mod.ts";
import { waitUntil } from "../../support/process.ts";
import { requires } from "../../support/requires.ts";
import { type TempDir, tempDir } from "../../support/temp.ts";

const MIB = 2 ** 20, MINUTE_MS = 60_000, HOUR_MS = 60 * MINUTE_MS, DAY_MS = 24 * HOUR_MS;
const RPO_MS = 12 * HOUR_MS, VALLEY_IN_MS = 4 * HOUR_MS, VALLEY_MS = 2 * HOUR_MS;
const needs = requires({ io_uring: true });

async function begin(temp: TempDir, mirror: string): Promise<RunningAgent> {
  const { config, problems } = parseConfig(
    `
state_dir: ${temp.path}/state
api: { listen: "unix:${temp.path}/api.sock" }
sampling: { interval: 1s }
forecast: { horizon: 1h, interval: 2s }
stores:
  near: { type: embedded, path: ${temp.path}/near }
  far: { type: embedded, path: ${temp.path}/far }
volumes:
  data:
    store: near
    size: 128MiB
    max_size: 1GiB
    frontend: nbd
    mirror: { store: far, ${mirror} }
    scale: { approve: advise }
`,
    temp.path,
  );
  deepEqual(problems, []);
  ok(config);
  const clock = systemClock, rng = systemRng;
  const agent = await startAgent({
    config,
    version: "0.0.0-test",
    log: silentLog,
    clock,
    rng,
  });
  await waitUntil(async () => (await agent.status()).ready, { what: "the agent" });
  return agent;
}

/** Three days in which the volume was busy, but for two hours of each. @param quiet_at_ms when they begin next. */
async function rememberDays(temp: TempDir, quiet_at_ms: number): Promise<void> {
  const forecaster = await openForecaster({ dir: temp.file("state/forecast"), log: silentLog });
  const now_ms = systemClock.nowMs(), samples: Sample[] = [];
  const busy: [Metric, number][] = [
    ["write_iops", 800],
    ["read_iops", 200],
    ["write_bytes_per_s", 800 * 4096],
  ];
  for (let at_ms = now_ms - 3 * DAY_MS; at_ms < now_ms; at_ms += 15 * MINUTE_MS) {
    const sinceQuiet = ((at_ms - quiet_at_ms) % DAY_MS + DAY_MS) % DAY_MS;
    const share = sinceQuiet < VALLEY_MS ? 0.02 : 1;
    for (const [metric, value] of busy) {
      samples.push({ volume: "data", metric, at_ms, value: value * share });
    }
  }
  forecaster.append(samples);
  await forecaster.compact();
  await forecaster.close();
}

/** Writes to the volume as an application would. */
async function write(agent: RunningAgent, bytes: number): Promise<void> {
  const [exported] = (await agent.volume("data")).exports;
  ok(exported?.frontend === "nbd");
  const program = await DataPlane.start({ log: silentLog });
  await using _program = { [Symbol.asyncDispose]: () => program.stop() };
  const { device } = await program.command("openDevice", { uri: exported.uri });
  const block = new Uint8Array(MIB).fill(7);
  for (let at = 0; at < bytes; at += MIB) {
    await program.command("writeDevice", { device, at, bytes: block });
  }
}

const mirrorOf = async (agent: RunningAgent) => {
  const mirror = await agent.mirror("data");
  ok(mirror);
  return mirror;
};

Deno.test({
  name: "agent: a round waits for the hours that are predicted to be quiet, within the RPO",
  ...needs,
  async fn() {
    using temp = tempDir();
    const quiet_at_ms = systemClock.nowMs() + VALLEY_IN_MS;
    Deno.mkdirSync(temp.file("state/forecast"), { recursive: true, mode: 0o700 });
    await rememberDays(temp, quiet_at_ms);
    const agent = await begin(temp, "rpo: 12h");
    await using _stop = { [Symbol.asyncDispose]: () => agent.stop() };
    await write(agent, 16 * MIB);
    const { id } = await agent.startMirror("data", { size_bytes: 256 * MIB });
    await waitUntil(() => agent.operation(id).state === "done", { what: "the first sync" });
    const written_ms = systemClock.nowMs();
    await write(agent, 8 * MIB);
    const told = () =>
      agent.events({ after: 0, limit: 1000, volume: "data" }).find(({ type, data }) =>
        type === "mirror.scheduled" && String(data["because"]).startsWith("quiet")
      );
    const event = await waitUntil(told, {
      what: "a decision for the quiet hours",
      within_ms: 150_000,
    });

    match(event.message, /predicted to be quieter/);
    ok(Number(event.data["predicted_steps"]) >= 24);
    equal(event.data["rpo_ms"], RPO_MS);
    const { scheduled, dirty_bytes, lag_ms, state } = await mirrorOf(agent);
    equal(state, "tracking");
    ok(dirty_bytes >= 8 * MIB && lag_ms !== null);
    const next_ms = Date.parse(scheduled.next_round_at ?? "");
    const slack_ms = 30 * MINUTE_MS;
    ok(next_ms >= quiet_at_ms - slack_ms, `${scheduled.next_round_at} is before the quiet hours`);
    ok(next_ms < quiet_at_ms + VALLEY_MS + slack_ms, `${scheduled.next_round_at} is after them`);
    ok(next_ms < written_ms + RPO_MS, "within the RPO");
    match(scheduled.because[0] ?? "", /predicted to be quieter/);
  },
});

Deno.test({
  name: "agent: an operator's deadline raises the copier's floor as it comes near, and only then",
  ...needs,
  async fn() {
    using temp = tempDir();
    const agent = await begin(
      temp,
      'rpo: 12h, schedule: [{ from: "00:00", to: "24:00", max_rate: 4MiB }]',
    );
    await using _stop = { [Symbol.asyncDispose]: () => agent.stop() };
    await write(agent, 32 * MIB);
    const floor = async () => (await mirrorOf(agent)).scheduled.floor_bytes_per_s;
    const started = async (deadline_ms?: number) => {
      const wish = deadline_ms === undefined ? {} : { deadline_ms };
      const { id } = await agent.startMirror("data", { size_bytes: 256 * MIB, ...wish });
      await waitUntil(() => agent.mirror("data").then((mirror) => mirror !== null), {
        what: "the mirror",
      });
      await agent.pauseMirror("data");
      return id;
    };
    const ended = async (id: string) => {
      await agent.cancelMirror("data");
      await waitUntil(() => agent.operation(id).state === "failed", { what: "the end" });
    };
    const plain = await started();
    equal(await floor(), 0, "nobody is in a hurry");
    const { eta_s, eta_reason, percent, scheduled } = await mirrorOf(agent);
    deepEqual([eta_s, eta_reason], [null, "the mirror is paused"]);
    ok(percent < 100, `${percent}`);
    equal(scheduled.ceiling_bytes_per_s, 4 * MIB, "the hours'");
    await ended(plain);

    const wanted = await started(20_000);
    const { dirty_bytes } = await mirrorOf(agent);
    const first = await waitUntil(floor, { what: "a floor" });
    ok(first >= dirty_bytes / 20, `${first} copies ${dirty_bytes} in 20 s`);
    ok(first < dirty_bytes / 10, `${first} is no more than that needs`);
    await waitUntil(async () => await floor() > 1.5 * first, { what: "a higher one" });
    await waitUntil(async () => await floor() === 4 * MIB, {
      what: "the ceiling, which goes before it",
      within_ms: 30_000,
    });
    const told = () =>
      agent.events({ after: 0, limit: 1000, volume: "data" }).find(({ type, data }) =>
        type === "mirror.scheduled" && typeof data["deadline_at"] === "string"
      );
    equal(told(), undefined, "nothing is told of what is paused");
    await agent.resumeMirror("data");
    const event = await waitUntil(told, { what: "the decision" });
    match(event.message, /the larger volume is needed/i);
    await ended(wanted);
  },
});
