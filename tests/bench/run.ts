/**
 * Runs a bench of this folder: `deno task bench NAME [--json] [--rounds N] [--seconds N]`; without a
 * name it lists them. With `--json` it prints one object per line:
 * `{bench, work, ours, peer, peer_name, unit, ratio, spread, rounds, better}`.
 */
import { parseArgs } from "node:util";
import { fileURLToPath } from "node:url";
import { whatIsMissing } from "../support/requires.ts";
import { setUp, TEST_PACKAGES } from "../support/setup.ts";
import type { Bench, BenchOptions, BenchResult } from "./pairs.ts";

const NOT_BENCHES = ["run", "pairs"];
const folder = fileURLToPath(new URL(".", import.meta.url));
const encoder = new TextEncoder();
const say = (line: string) => void Deno.stdout.writeSync(encoder.encode(line + "\n"));
const warn = (line: string) => void Deno.stderr.writeSync(encoder.encode(line + "\n"));

const { values, positionals } = parseArgs({
  args: Deno.args,
  allowPositionals: true,
  options: {
    json: { type: "boolean", default: false },
    rounds: { type: "string", default: "5" },
    seconds: { type: "string", default: "3" },
  },
});

function benchNames(): string[] {
  return [...Deno.readDirSync(folder)].map(({ name }) => name)
    .filter((name) => name.endsWith(".ts")).map((name) => name.slice(0, -".ts".length))
    .filter((name) => !NOT_BENCHES.includes(name)).sort();
}

async function load(name: string): Promise<Bench> {
  const { bench } = await import(`./${name}.ts`) as { bench?: Bench };
  if (bench === undefined) throw new Error(`Cannot run ${name}: its file exports no bench`);
  return bench;
}

async function list(): Promise<void> {
  for (const name of benchNames()) say(`${name.padEnd(16)} ${(await load(name)).about}`);
}

/** @returns the exit code. */
async function runBench(name: string, options: BenchOptions): Promise<number> {
  if (!benchNames().includes(name)) {
    warn(`Cannot run ${name}: there is no such bench (${benchNames().join(", ")})`);
    return 2;
  }
  const bench = await load(name);
  if (whatIsMissing(bench.needs).length > 0) setUp(TEST_PACKAGES, warn);
  const missing = whatIsMissing(bench.needs);
  if (missing.length > 0) {
    warn(`Cannot run ${name}: it ${missing.map(({ reason }) => reason).join(", ")}`);
    return 69;
  }
  for await (const result of bench.run(options)) {
    say(values.json ? JSON.stringify({ bench: name, ...result }) : sentence(name, result));
  }
  return 0;
}

function sentence(name: string, result: BenchResult): string {
  const { work, ours, peer, peer_name, unit, ratio, spread, rounds, better } = result;
  return `${name}: ${work}: ours ${figure(ours)} ${unit}, ${peer_name} ${figure(peer)} ${unit}: ` +
    `${ratio.toFixed(2)}x (${better} is better; rounds differ by ${
      Math.round(spread * 100)
    }%, ${rounds} rounds)`;
}

function figure(value: number): string {
  return value.toLocaleString("en", { maximumSignificantDigits: 4 });
}

function positive(text: string, option: string): number {
  const value = Number(text);
  if (value > 0) return value;
  warn(`Cannot use --${option}: "${text}" is not a positive number`);
  Deno.exit(2);
}

const [name] = positionals;
const options = {
  rounds: Math.ceil(positive(values.rounds, "rounds")),
  seconds: positive(values.seconds, "seconds"),
};
if (name === undefined) await list();
else Deno.exit(await runBench(name, options));
