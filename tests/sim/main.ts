/**
 * Runs simulations from the command line:
 *
 *     deno task sim [--seeds N] [--first S] [--seed S] [--faults LIST] [--chaos FACTOR]
 *
 * Without options, 200 seeds from a random one on. `--seed S` runs one seed and prints what happened.
 * `--faults kill,node-power,…` takes these instead of each seed's own choice, `--chaos 10` goes on with them
 * ten times as long: many crashes for little work. A seed is replayed with the options that it failed with.
 */
import { parseArgs } from "node:util";
import { systemClock, systemRng } from "../../src/core/mod.ts";
import { loadDigest } from "../../src/mirror/mod.ts";
import { type Fault, FAULTS } from "./faults.ts";
import { Simulation, type SimulationOptions } from "./simulation.ts";
import { Totals } from "./totals.ts";

const { values } = parseArgs({
  args: Deno.args,
  options: {
    seeds: { type: "string", default: "200" },
    first: { type: "string" },
    seed: { type: "string" },
    faults: { type: "string" },
    chaos: { type: "string", default: "1" },
  },
});

const encoder = new TextEncoder();
const say = (line: string): void => void Deno.stdout.writeSync(encoder.encode(line + "\n"));

const options: SimulationOptions = {
  faults: values.faults?.split(",").map(readFault),
  chaosFactor: Number(values.chaos),
};

const digest = await loadDigest();

function readFault(name: string): Fault {
  const fault = FAULTS.find((known) => known === name);
  if (fault) return fault;
  say(`No fault is called ${name}. There are ${FAULTS.join(", ")}.`);
  Deno.exit(2);
}

/** One seed, told line by line. */
async function tell(seed: number): Promise<void> {
  const outcome = await new Simulation(seed, digest, { ...options, tells: true }).run();
  for (const line of outcome.lines) say(line);
  if (outcome.failure === undefined) return say(`seed ${seed} is well`);
  say(outcome.failure instanceof Error ? `${outcome.failure.stack}` : `${outcome.failure}`);
  Deno.exitCode = 1;
}

async function runMany(first: number, count: number): Promise<void> {
  const beganMs = systemClock.monotonicMs(), total = new Totals();
  for (let seed = first; seed < first + count; seed++) {
    const outcome = await new Simulation(seed, digest, options).run();
    total.add(outcome);
    if (outcome.failure !== undefined) say(`seed ${seed} failed: ${outcome.failure}`);
  }
  const seconds = (systemClock.monotonicMs() - beganMs) / 1000;
  say(`${total.text()} in ${seconds.toFixed(1)} s`);
  if (total.failed > 0) Deno.exitCode = 1;
}

if (values.seed !== undefined) await tell(Number(values.seed));
else {
  const first = values.first === undefined ? systemRng.below(2 ** 31) : Number(values.first);
  await runMany(first, Number(values.seeds));
}
