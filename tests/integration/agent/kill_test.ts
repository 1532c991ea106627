/**
 * `kill -9` of the agent, of its store and of both, at random and at chosen moments of sync, resync, converge,
 * switch, of following the backup and of going back to it, under an application that verifies every block. Who was killed is started again each time and must go on
 * with what it was doing, to the end. `deno task test:kills` does it a thousand times and says what it counted.
 */
import { equal, ok } from "node:assert/strict";
import { seededRng, systemRng } from "../../../src/core/mod.ts";
import { KillCounts, KillRig } from "../../support/kill_rig.ts";
import { requires } from "../../support/requires.ts";
import { tempDir } from "../../support/temp.ts";

const KILLS = Number(Deno.env.get("PSMA_KILLS") ?? 60);
/** So many agents with stores at a time, each with its share of the kills. */
const RIGS = Number(Deno.env.get("PSMA_KILL_RIGS") ?? 3);
/** No kill is begun after so many minutes: what was counted until then is told all the same. */
const MINUTES = Number(Deno.env.get("PSMA_KILL_MINUTES") ?? Infinity);
const BACKUPS = ["sync", "async", "frozen"] as const;
const SEED = Number(Deno.env.get("PSMA_SEED") ?? systemRng.below(2 ** 32));

/** Kills must fall into some of these, or the test shows nothing. */
const AT_WORK = ["syncing", "tracking", "resyncing", "converging", "ready", "switching"];

/** Its share of the kills, or fewer when another rig has failed. */
async function runRig(
  number: number,
  kills: number,
  mayGoOn: () => boolean,
): Promise<KillCounts> {
  using temp = tempDir();
  const backup = BACKUPS[number % BACKUPS.length] ?? "frozen";
  const name = `rig ${number}, backup ${backup}, seed ${SEED}`;
  await using rig = new KillRig({ temp, rng: seededRng(SEED + number), backup, name });
  await rig.begin();
  for (let kill = 0; kill < kills && mayGoOn(); kill++) await rig.killOnce();
  await rig.finish();
  return rig.counts;
}

function tell(counts: KillCounts): string {
  const { kills, switches, unverified, writes, reads } = counts;
  const states = [...kills].sort().map(([key, count]) => `  ${count} × ${key}`);
  return [
    `${counts.total} kills, seed ${SEED}:`,
    ...states,
    `${writes} acknowledged writes verified, ${reads} reads; ${switches} switches, ${unverified.length} of them unverified`,
    ...unverified,
    "",
  ].join("\n");
}

Deno.test({
  name: `agent and store: killed ${KILLS} times, they lose no acknowledged write and finish`,
  ...requires({ io_uring: true }),
  async fn() {
    const failure = new AbortController(), endMs = performance.now() + MINUTES * 60_000;
    const mayGoOn = () => !failure.signal.aborted && performance.now() < endMs;
    const shares = Array.from(
      { length: RIGS },
      (_, rig) => Math.floor(KILLS * (rig + 1) / RIGS) - Math.floor(KILLS * rig / RIGS),
    );
    const rigs = shares.map(async (kills, number) => {
      try {
        return await runRig(number, kills, mayGoOn);
      } catch (error) {
        failure.abort();
        throw error;
      }
    });
    const counts = new KillCounts(), faults: unknown[] = [];
    // All of them: none may still be at work when the test ends.
    for (const rig of await Promise.allSettled(rigs)) {
      if (rig.status === "rejected") faults.push(rig.reason);
      else counts.add(rig.value);
    }
    Deno.stdout.writeSync(new TextEncoder().encode(tell(counts)));
    if (faults.length > 0) throw faults[0];
    ok(counts.total === KILLS || performance.now() >= endMs, tell(counts));
    equal(counts.unverified.length, 0, tell(counts));
    const struck = AT_WORK.filter((state) =>
      [...counts.kills.keys()].some((key) => key.endsWith(state))
    );
    ok(KILLS < 50 || struck.length >= 3, tell(counts));
    ok(KILLS < 50 || counts.switches >= 3, tell(counts));
  },
});
