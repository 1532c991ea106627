/** The forecaster with its real child process: killed, starved of its file, left idle, asked too much. */
import { deepEqual, equal, ok, rejects } from "node:assert/strict";
import { seededRng, silentLog, systemClock } from "../../../src/core/mod.ts";
import {
  type Forecaster,
  type ForecasterOptions,
  openForecaster,
  type Sample,
} from "../../../src/forecast/mod.ts";
import { kill, waitUntil } from "../../support/process.ts";
import { tempDir } from "../../support/temp.ts";

/** Recent, so that retention leaves every sample of a test alone. */
const START_MS = Math.floor(systemClock.nowMs() / 60_000) * 60_000 - 3_600_000;
const RANGE = { from_ms: 0, to_ms: START_MS + 10 * 86_400_000, step_ms: 250 };

const used = (index: number): Sample => ({
  volume: "data",
  metric: "used_bytes",
  at_ms: START_MS + index * 250,
  value: 1e9 + index * 1e6,
});
const open = (dir: string, more: Partial<ForecasterOptions> = {}) =>
  openForecaster({ dir, log: silentLog, idle_ms: 60_000, ...more });
const values = async (forecaster: Forecaster) =>
  (await forecaster.history({ volume: "data", metric: "used_bytes", ...RANGE }))
    .map(({ value }) => (value - 1e9) / 1e6);
const gone = (pid: number) =>
  waitUntil(() => {
    try {
      return !/^State:\s+[^Z]/m.test(Deno.readTextFileSync(`/proc/${pid}/status`));
    } catch {
      return true;
    }
  }, { what: `process ${pid} to end` });

Deno.test("a growing volume is forecast ahead of its fill, from the program's own child", async () => {
  using temp = tempDir();
  const forecaster = await open(temp.path);
  try {
    await rejects(
      forecaster.forecast({ volume: "data", metric: "used_bytes", horizon_ms: 30_000 }),
      { code: "forecast/short-history" },
    );
    const rng = seededRng(1);
    let value = 1e9;
    for (let i = 0; i < 120; i++) {
      forecaster.append([{ ...used(i), value: value += 4e6 * rng.float() }]);
    }
    const limit = value + 60e6;
    const request = { volume: "data", metric: "used_bytes", horizon_ms: 30_000, limit } as const;
    const answer = await forecaster.forecast(request);
    equal(answer.origin_ms, START_MS + 119 * 250);
    equal(answer.step_ms, 500);
    equal(answer.steps.length, 60);
    equal(answer.history_points, 60);
    const end = answer.steps.at(-1)?.values ?? [];
    const median = end[answer.levels.indexOf(0.5)] ?? 0;
    const upper = end[answer.levels.indexOf(0.95)] ?? 0;
    ok(Math.abs(median - (value + 120 * 2e6)) < 60e6, `median ${median}`);
    ok(upper > median && upper < value + 3 * 120 * 2e6, `upper ${upper}`);
    const { by_level, probability_within_horizon } = answer.time_to_limit ?? { by_level: [] };
    equal(probability_within_horizon, 1);
    const times = by_level.map(({ at_ms }) => at_ms ?? Infinity);
    deepEqual(times, times.toSorted((a, b) => b - a), "a higher level reaches the limit earlier");
    equal(answer.backtest.windows, 1);
    ok((answer.backtest.coverage80 ?? 0) > 0.5);
    equal(forecaster.lastError, undefined);
  } finally {
    await forecaster.close();
  }
});

Deno.test("kill -9 of the child at any moment loses no sample and doubles none", async () => {
  using temp = tempDir();
  const rng = seededRng(2);
  const forecaster = await open(temp.path);
  let appended = 0;
  try {
    for (let round = 0; round < 9; round++) {
      for (let i = 0; i < 400; i++) forecaster.append([used(appended++)]);
      const work = forecaster.compact().then(() => true, (error) => {
        equal(error.code, "unavailable/forecaster");
        return false;
      });
      // The first rounds may hit the start; a warm child is hit while it ingests and checkpoints.
      if (round % 3 !== 2) {
        const pid = await waitUntil(() => forecaster.childPid, { what: "a child", every_ms: 1 });
        let polls = rng.below(round % 3 === 0 ? 500 : 30);
        await waitUntil(() => polls-- === 0, { what: "a random moment", every_ms: 5 });
        kill(pid, "SIGKILL");
      }
      await work;
    }
    deepEqual(await values(forecaster), Array.from({ length: appended }, (_, i) => i));
  } finally {
    await forecaster.close();
  }
  const again = await open(temp.path);
  try {
    equal((await values(again)).length, appended);
  } finally {
    await again.close();
  }
});

Deno.test("kill -9 of the agent loses nothing that was appended, and takes the child along", async () => {
  using temp = tempDir();
  const program = `
    import { openForecaster } from "${new URL("../../../src/forecast/mod.ts", import.meta.url)}";
    import { silentLog } from "${new URL("../../../src/core/mod.ts", import.meta.url)}";
    const forecaster = await openForecaster({ dir: "${temp.path}", log: silentLog });
    const samples = ${JSON.stringify([0, 1, 2].map(used))};
    forecaster.append(samples.slice(0, 2));
    await forecaster.compact();
    forecaster.append(samples.slice(2));
    Deno.stdout.writeSync(new TextEncoder().encode(forecaster.childPid + "\\n"));
    await new Promise(() => setInterval(() => {}, 1000));`;
  const config = new URL("../../../deno.json", import.meta.url).pathname;
  const path = temp.file("agent.ts");
  Deno.writeTextFileSync(path, program);
  const agent = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--quiet", "--config", config, path],
    stdout: "piped",
  }).spawn();
  const reader = agent.stdout.pipeThrough(new TextDecoderStream()).getReader();
  const child = Number((await reader.read()).value);
  agent.kill("SIGKILL");
  await agent.status;
  await reader.cancel();
  ok(child > 0);
  await gone(child);
  const forecaster = await open(temp.path);
  try {
    deepEqual(await values(forecaster), [0, 1, 2]);
  } finally {
    await forecaster.close();
  }
});

Deno.test("a journal that was ingested but not dropped before a crash is not taken twice", async () => {
  using temp = tempDir();
  const first = await open(temp.path);
  for (let i = 0; i < 5; i++) first.append([used(i)]);
  await first.close();
  const journal = temp.file("journal");
  const kept = [...Deno.readDirSync(journal)].map(({ name }) => ({
    path: `${journal}/${name}`,
    bytes: Deno.readFileSync(`${journal}/${name}`),
  }));
  const second = await open(temp.path);
  await second.compact();
  second.append([used(5)]);
  await second.close();
  for (const { path, bytes } of kept) Deno.writeFileSync(path, bytes, { createNew: true });
  const third = await open(temp.path);
  try {
    await third.compact();
    deepEqual(await values(third), [0, 1, 2, 3, 4, 5]);
    // The count tells what the history cannot: two samples of one moment look like one in it.
    const answer = third.forecast({ volume: "data", metric: "used_bytes", horizon_ms: 1000 });
    await rejects(answer, { code: "forecast/short-history", message: /is 6 samples/ });
  } finally {
    await third.close();
  }
});

Deno.test("an idle child ends, and its memory goes back; the next question starts another", async () => {
  using temp = tempDir();
  const forecaster = await open(temp.path, { idle_ms: 50 });
  try {
    forecaster.append([used(0)]);
    await forecaster.compact();
    const pid = await waitUntil(() => forecaster.childPid ?? true, { what: "the child" });
    if (pid !== true) await gone(pid);
    await waitUntil(() => forecaster.childPid === undefined, { what: "the child to be let go" });
    deepEqual(await values(forecaster), [0]);
  } finally {
    await forecaster.close();
  }
  equal(forecaster.childPid, undefined);
});

Deno.test("a damaged database is set aside and a new one begun; what the journal holds is kept", async () => {
  using temp = tempDir();
  const first = await open(temp.path);
  for (let i = 0; i < 100; i++) first.append([used(i)]);
  await first.compact();
  first.append([used(100)]);
  await first.close();
  const path = temp.file("forecast.duckdb");
  for (const damage of ["header", "block"]) {
    const bytes = Deno.readFileSync(path);
    const at = damage === "header" ? 8 : 3 * 4096 + 100;
    bytes.fill(0x5a, at, damage === "header" ? 64 : bytes.length);
    Deno.writeFileSync(path, bytes);
    const forecaster = await open(temp.path);
    try {
      const last = await values(forecaster);
      deepEqual(last, damage === "header" ? [100] : [], damage);
      deepEqual(Deno.readFileSync(`${path}.damaged`), bytes);
      forecaster.append([used(7)]);
      deepEqual(await values(forecaster), [...last, 7].toSorted((a, b) => a - b));
    } finally {
      await forecaster.close();
    }
    if (damage === "header") Deno.removeSync(`${path}.damaged`);
  }
});

Deno.test("a second forecaster on one directory is refused while the first has its child", async () => {
  using temp = tempDir();
  const [first, second] = [await open(temp.path), await open(temp.path)];
  try {
    await first.compact();
    await rejects(second.compact(), { code: "state/forecast-locked" });
    await first.close();
    await second.compact();
  } finally {
    await first.close();
    await second.close();
  }
});

Deno.test("a child that does not answer in time is ended with a clear error", async () => {
  using temp = tempDir();
  const command = { command: "sleep", args: ["600"] };
  const forecaster = await open(temp.path, { command, timeout_ms: 100 });
  try {
    await rejects(forecaster.compact(), { code: "timeout/forecaster" });
    equal(forecaster.lastError?.code, "timeout/forecaster");
    equal(forecaster.childPid, undefined);
  } finally {
    await forecaster.close();
  }
});

Deno.test("a program that is no forecaster is an error, not a hang", async () => {
  using temp = tempDir();
  for (const [command, args] of [["false", []], ["echo", ["hello"]]] as const) {
    const forecaster = await open(temp.file(command), { command: { command, args: [...args] } });
    try {
      await rejects(forecaster.compact(), { code: "unavailable/forecaster" });
    } finally {
      await forecaster.close();
    }
  }
});

Deno.test("the same question asked at once is answered once; too many questions are refused", async () => {
  using temp = tempDir();
  const forecaster = await open(temp.path);
  try {
    for (let i = 0; i < 20; i++) forecaster.append([used(i)]);
    const ask = (horizon_ms: number) =>
      forecaster.forecast({ volume: "data", metric: "used_bytes", horizon_ms });
    const [one, two] = await Promise.all([ask(5000), ask(5000)]);
    ok(one === two);
    const many = await Promise.allSettled(
      Array.from({ length: 300 }, (_, i) =>
        forecaster.history({
          volume: `none-${i}`,
          metric: "used_bytes",
          ...RANGE,
        })),
    );
    const refused = many.filter((result) => result.status === "rejected");
    ok(refused.length >= 40 && refused.length < 60, `${refused.length} refused`);
    for (const { reason } of refused) equal(reason.code, "unavailable/forecaster-busy");
  } finally {
    await forecaster.close();
  }
});

Deno.test("close() answers what is being worked on, refuses what waits, and leaves no process", async () => {
  using temp = tempDir();
  const forecaster = await open(temp.path);
  forecaster.append([used(0)]);
  const working = forecaster.compact();
  const waiting = rejects(values(forecaster), { code: "state/forecaster" });
  await waitUntil(() => forecaster.childPid, { what: "the child", every_ms: 1 });
  const closing = forecaster.close();
  await working;
  await waiting;
  await closing;
  equal(forecaster.childPid, undefined);
  await rejects(forecaster.compact(), { code: "state/forecaster" });
});
