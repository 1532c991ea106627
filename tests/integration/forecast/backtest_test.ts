/** `psma backtest` as a user runs it: a CSV file of his own, and a task file with its data. */
import { deepEqual, equal, match, ok } from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { tempDir } from "../../support/temp.ts";

const MAIN = fileURLToPath(new URL("../../../main.ts", import.meta.url));
const STEP_S = 3600;
const POINTS = 240;

/** A day's wave on a slope, an hour a line. */
const HISTORY = ["series,t,used_bytes"].concat(
  Array.from({ length: POINTS }, (_, at) => {
    const value = 1e9 + 1e6 * at + 2e7 * Math.sin(at / 24 * 2 * Math.PI) + 1e5 * (at * 7919 % 13);
    return `data,${1_700_000_000 + at * STEP_S},${Math.round(value)}`;
  }),
).join("\n");
const TASKS = "task,set,file,value,step_s,agg,m,m2,h,n_min,n_max,n_origins,nonneg,kind\n" +
  `waves,sets,waves.csv,used_bytes,${STEP_S},last,24,0,12,48,200,2,1,capacity\n` +
  `missing,sets,none.csv,used_bytes,${STEP_S},last,24,0,12,48,200,2,1,capacity\n`;

async function psma(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", MAIN, "backtest", ...args],
  }).output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { code, stdout: text(stdout), stderr: text(stderr) };
}

Deno.test("psma backtest scores a CSV file's forecasts beside those of naive and of straight lines", async () => {
  using temp = tempDir();
  const file = temp.file("waves.csv");
  Deno.writeTextFileSync(file, HISTORY);
  const { code, stdout, stderr } = await psma(file, "--horizon", "12h", "--origins", "3", "--json");
  equal(code, 0, stderr);
  const [{ methods, horizon_steps, step_s }] = JSON.parse(stdout);
  deepEqual([horizon_steps, step_s], [12, STEP_S]);
  const names = methods.map(({ method }: { method: string }) => method);
  deepEqual(names, ["psma", "naive", "linear over h", "linear over 4 h"]);
  const [psmaRow, naive] = methods;
  deepEqual([psmaRow.series, psmaRow.forecasts, naive.relative_pinball], [1, 3, 1]);
  ok(psmaRow.relative_pinball < 0.5, `a wave on a slope is no naive's: ${stdout}`);
  ok(psmaRow.coverage95 > 0.5 && psmaRow.fit_ms > 0, stdout);
});

Deno.test("psma backtest writes a task's forecasts, a line a step, quantiles ascending", async () => {
  using temp = tempDir();
  Deno.mkdirSync(temp.file("sets"));
  Deno.writeTextFileSync(temp.file("sets/waves.csv"), HISTORY);
  Deno.writeTextFileSync(temp.file("tasks.csv"), TASKS);
  const out = temp.file("out.csv");
  const common = ["--tasks", temp.file("tasks.csv"), "--data", temp.path];
  const done = await psma(...common, "--task", "waves", "--forecasts", out);
  equal(done.code, 0, done.stderr);
  const [header, ...lines] = Deno.readTextFileSync(out).trimEnd().split("\n");
  equal(header, "task,series,origin,k,q025,q10,q50,q90,q975,fit_ms");
  const rows = lines.map((line) => line.split(","));
  deepEqual(rows.map(([task, series, origin, k]) => [task, series, Number(origin), Number(k)]), [
    ...Array.from({ length: 12 }, (_, at) => ["waves", "data", 120, at + 1]),
    ...Array.from({ length: 12 }, (_, at) => ["waves", "data", 228, at + 1]),
  ]);
  for (const row of rows) {
    const quantiles = row.slice(4, 9).map(Number);
    ok(quantiles.every((value, at) => at === 0 || value >= (quantiles[at - 1] ?? 0)), `${row}`);
  }
  const unknown = await psma(...common, "--task", "wave");
  deepEqual([unknown.code, unknown.stdout], [2, ""]);
  match(unknown.stderr, /there is no task wave\n {2}The tasks are waves, missing\./);
  const missing = await psma(...common);
  equal(missing.code, 3);
  match(missing.stderr, /none\.csv: there is no such file/);
});
