/**
 * Runs a bench of this folder; without a name it lists them.
 *
 *     deno task bench NAME [--json] [--rounds N] [--seconds N] [--size SIZE] [--work PATTERN] [--peer NAME]…
 *       [--storage NAME]… [--write]
 *
 * With `--json` it prints one object per line: `{bench, work, ours, peer, peer_name, unit, ratio, spread, rounds,
 * better}`. PATTERN is a regular expression, upper and lower case alike.
 */
import { parseArgs } from "node:util";
import { fileURLToPath } from "node:url";
import { parseSize } from "../../src/core/mod.ts";
import { whatIsMissing } from "../support/requires.ts";
import { setUp, TEST_PACKAGES } from "../support/setup.ts";
import type { Bench, BenchOptions, BenchResult } from "./pairs.ts";

const NOT_BENCHES = ["run", "pairs"];
const USAGE = `deno task bench [NAME] [options]
  --json          one object per line
  --rounds N      rounds per work (5)
  --seconds N     seconds of one run (3)
  --size SIZE     of the volume, where a bench lets it be chosen
  --work PATTERN  only works that match this regular expression
  --peer NAME     only this peer; may be given again
  --storage NAME  only files on this storage; may be given again
  --write         also put the figures on the bench's page in docs/`;
const folder = fileURLToPath(new URL(".", import.meta.url));
const encoder = new TextEncoder();
const say = (line: string) => void Deno.stdout.writeSync(encoder.encode(line + "\n"));
const warn = (line: string) => void Deno.stderr.writeSync(encoder.encode(line + "\n"));

const { values, positionals } = parseArgs({
  args: Deno.args,
  allowPositionals: true,
  options: {
    help: { type: "boolean", default: false },
    json: { type: "boolean", default: false },
    rounds: { type: "string", default: "5" },
    seconds: { type: "string", default: "3" },
    size: { type: "string" },
    work: { type: "string" },
    peer: { type: "string", multiple: true },
    storage: { type: "string", multiple: true },
    write: { type: "boolean", default: false },
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
  const fault = faultOf(bench, options);
  if (fault !== undefined) {
    warn(`Cannot run ${name}: ${fault}`);
    return 2;
  }
  if (whatIsMissing(bench.needs).length > 0) setUp(TEST_PACKAGES, warn);
  const missing = whatIsMissing(bench.needs);
  if (missing.length > 0) {
    warn(`Cannot run ${name}: it ${missing.map(({ reason }) => reason).join(", ")}`);
    return 69;
  }
  if (!values.json) say(HEADING);
  const results: BenchResult[] = [];
  try {
    for await (const result of bench.run(options)) {
      results.push(result);
      say(values.json ? JSON.stringify({ bench: name, ...result }) : rowOf(result));
    }
  } catch (error) {
    if (!options.signal?.aborted) throw error;
    warn("interrupted");
    return 130;
  }
  if (values.write) warn(`wrote ${await bench.write?.(results, options)}`);
  return 0;
}

/** @returns what is wrong with the options for this bench. */
function faultOf({ peers = [], storages = [], write }: Bench, options: BenchOptions) {
  const unknown = (given: readonly string[] | undefined, known: readonly string[]) =>
    given?.find((one) => !known.includes(one));
  const peer = unknown(options.peers, peers), storage = unknown(options.storages, storages);
  if (peer !== undefined) return `it has no peer "${peer}" (${peers.join(", ") || "no choice"})`;
  if (storage !== undefined) {
    return `it has no storage "${storage}" (${storages.join(", ") || "no choice"})`;
  }
  if (!values.write) return undefined;
  if (write === undefined) return "it has no page for --write";
  if (options.work ?? options.peers) return "--write takes all works and all peers";
  return undefined;
}

const HEADING = tableRow(["work", "unit", "ours", "peer", "", "ratio", "spread"]);

function rowOf({ work, unit, ours, peer, peer_name, ratio, spread }: BenchResult): string {
  const figures = [figure(ours), figure(peer), peer_name];
  return tableRow([work, unit, ...figures, `${ratio.toFixed(2)}x`, spread.toFixed(2)]);
}

function tableRow([work, unit, ours, peer, peer_name, ratio, spread]: readonly string[]): string {
  return `${work?.padEnd(56)} ${unit?.padEnd(14)} ${ours?.padStart(9)} ${peer?.padStart(9)} ` +
    `${peer_name?.padEnd(20)} ${ratio?.padStart(6)} ${spread?.padStart(6)}`;
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

function size(text: string): number {
  try {
    return parseSize(text);
  } catch {
    warn(`Cannot use --size: "${text}" is not a size like 256MiB`);
    Deno.exit(2);
  }
}

function pattern(text: string): RegExp {
  try {
    return new RegExp(text, "i");
  } catch {
    warn(`Cannot use --work: "${text}" is not a regular expression`);
    Deno.exit(2);
  }
}

/** Aborted by the first interrupt; what is set up is then taken down before the program ends. */
function interruption(): AbortSignal {
  const interrupted = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    Deno.addSignalListener(signal, () => interrupted.abort(new Error("interrupted")));
  }
  return interrupted.signal;
}

const [name] = positionals;
const options: BenchOptions = {
  rounds: Math.ceil(positive(values.rounds, "rounds")),
  seconds: positive(values.seconds, "seconds"),
  signal: interruption(),
  ...(values.size === undefined ? {} : { size_bytes: size(values.size) }),
  ...(values.work === undefined ? {} : { work: pattern(values.work) }),
  ...(values.peer === undefined ? {} : { peers: values.peer }),
  ...(values.storage === undefined ? {} : { storages: values.storage }),
};
if (values.help) say(USAGE);
else if (name === undefined) await list();
Deno.exit(values.help || name === undefined ? 0 : await runBench(name, options));
