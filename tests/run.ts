/**
 * The one test runner, behind `deno task test` and (`--quick`) `deno task ok`.
 *
 *     deno task test [--quick] [--group NAME] [--filter TEXT] [PATH…]
 *
 * Its last line is `N passed, N failed, N skipped`, counting single tests; the toolchain's checks
 * count as one each. It fails when a test failed, when nothing ran, and, with CI=true, when a test
 * was skipped for want of something that set-up should have provided.
 */
import { parseArgs } from "node:util";
import { fileURLToPath } from "node:url";
import { removeDead } from "./support/leftovers.ts";
import { type FileResult, runFile } from "./support/run_file.ts";
import { setUp, TEST_PACKAGES } from "./support/setup.ts";
import { CHECKS, type Group, GROUPS, testFiles } from "./support/suite.ts";
import { fetchVmFiles } from "./support/vm_files.ts";

interface Wanted {
  readonly quick: boolean;
  readonly group: string | undefined;
  readonly filter: string | undefined;
  readonly paths: readonly string[];
}

const root = fileURLToPath(new URL("..", import.meta.url)).replace(/\/$/, "");
const inCi = Deno.env.get("CI") === "true";
const interrupted = new AbortController();
const count = { passed: 0, failed: 0, skipped: 0 };
/** Reason → the files that gave it; and whether set-up should have provided it. */
const skipReasons = new Map<string, { files: string[]; setup: boolean }>();
const failures: string[] = [];

const encoder = new TextEncoder();
function say(line: string): void {
  Deno.stdout.writeSync(encoder.encode(line + "\n"));
}

async function runChecks(): Promise<void> {
  for (const { name, args } of CHECKS) {
    if (interrupted.signal.aborted) return;
    const began_ms = performance.now();
    const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      args: [...args],
      cwd: root,
      env: { NO_COLOR: "1" },
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).output();
    count[success ? "passed" : "failed"]++;
    sayLine(success ? "ok" : "FAILED", `deno ${name}`, "", performance.now() - began_ms);
    if (success) continue;
    failures.push(`deno ${name}`);
    const decoder = new TextDecoder();
    say(indent(decoder.decode(stdout) + decoder.decode(stderr)));
  }
}

async function runGroup(group: Group, files: readonly string[], wanted: Wanted): Promise<void> {
  const left = [...files];
  const env: Record<string, string> = wanted.quick ? { PSMA_TEST_QUICK: "1" } : {};
  const worker = async () => {
    for (let path = left.shift(); path !== undefined; path = left.shift()) {
      if (interrupted.signal.aborted) return;
      const { limit_ms, leftovers, flags } = group;
      const { filter } = wanted;
      const { signal } = interrupted;
      record(await runFile(path, { root, limit_ms, leftovers, flags, filter, env, signal }));
    }
  };
  const workers = group.parallel ? navigator.hardwareConcurrency : 1;
  await Promise.all(Array.from({ length: workers }, worker));
}

function record(result: FileResult): void {
  const { path, cases, took_ms } = result;
  const of = (outcome: string) => cases.filter((test) => test.outcome === outcome);
  const failed = of("failed");
  const numbers = `${of("passed").length} passed` +
    (failed.length > 0 ? `, ${failed.length} failed` : "") +
    (of("skipped").length > 0 ? `, ${of("skipped").length} skipped` : "");
  for (const { outcome } of cases) count[outcome]++;
  sayLine(failed.length > 0 ? "FAILED" : "ok", path, numbers, took_ms);
  for (const { name } of failed) failures.push(`${path}: ${name}`);
  if (failed.length > 0) say(indent(result.output));
  else for (const [warning] of result.output.matchAll(/^warning: .*$/gm)) say(indent(warning));
  for (const { reason, setup } of result.missing) {
    const known = skipReasons.get(reason) ?? { files: [], setup };
    known.files.push(path);
    skipReasons.set(reason, known);
  }
}

function summarise(): void {
  for (const [reason, { files, setup }] of skipReasons) {
    say(`skipped: ${reason} (${files.join(", ")})`);
    if (!inCi || !setup) continue;
    count.failed++;
    failures.push(`set-up: ${reason}`);
  }
  const ran = count.passed + count.failed;
  if (ran === 0) say("nothing ran");
  for (const failure of failures) say(`FAILED ${failure}`);
  say(`${count.passed} passed, ${count.failed} failed, ${count.skipped} skipped`);
  Deno.exitCode = interrupted.signal.aborted ? 130 : count.failed > 0 || ran === 0 ? 1 : 0;
}

function sayLine(state: string, what: string, numbers: string, took_ms: number): void {
  const details = numbers === "" ? "" : ` ${numbers},`;
  say(`${state.padEnd(6)} ${what}${details} ${(took_ms / 1000).toFixed(1)} s`);
}

function indent(text: string): string {
  return text.trim().split("\n").map((line) => `       | ${line}`).join("\n");
}

function readArguments(): Wanted {
  const { values, positionals } = parseArgs({
    args: Deno.args,
    allowPositionals: true,
    options: {
      quick: { type: "boolean", default: false },
      group: { type: "string" },
      filter: { type: "string" },
    },
  });
  const { quick, group, filter } = values;
  return { quick, group, filter, paths: positionals.map((path) => path.replace(/^\.\//, "")) };
}

async function main(): Promise<void> {
  const wanted = readArguments();
  const chosen = wanted.group !== undefined || wanted.paths.length > 0;
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    Deno.addSignalListener(signal, () => interrupted.abort());
  }
  if (!wanted.quick) setUp(TEST_PACKAGES, say);
  for (const at of await removeDead()) say(`set-up: removed ${at}, which a killed run had left`);
  if (!chosen && wanted.filter === undefined) await runChecks();
  for (const group of GROUPS) {
    if (wanted.group !== undefined && wanted.group !== group.name) continue;
    if (wanted.quick && !group.quick) continue;
    const files = testFiles(root, group.name).filter((file) =>
      wanted.paths.length === 0 || wanted.paths.some((path) => file.startsWith(path))
    );
    if (group.name === "vm" && files.length > 0) fetchVmFiles(say);
    await runGroup(group, files, wanted);
  }
  summarise();
  Deno.exit();
}

await main();
