/** What many simulations came to, in one line. */
import type { Outcome } from "./simulation.ts";

export class Totals {
  seeds = 0;
  failed = 0;
  #kills = 0;
  #powerLosses = 0;
  #storeLosses = 0;
  switches = 0;
  #writes = 0;
  #blocks = 0;
  #virtualMs = 0;

  add(outcome: Outcome): void {
    this.seeds++;
    if (outcome.failure !== undefined) this.failed++;
    this.#kills += outcome.kills;
    this.#powerLosses += outcome.powerLosses;
    this.#storeLosses += outcome.storeLosses;
    this.switches += outcome.switches;
    this.#writes += outcome.writes;
    this.#blocks += outcome.blocksChecked;
    this.#virtualMs += outcome.virtualMs;
  }

  text(): string {
    const mib = Math.round(this.#blocks / 2048), minutes = Math.round(this.#virtualMs / 60_000);
    return `${this.seeds} seeds, ${this.failed} failed: ${this.#kills} crashes of the agent, ` +
      `${this.#powerLosses} power losses of its machine, ${this.#storeLosses} of the store's, ` +
      `${this.switches} switches, ${this.#writes} acknowledged writes, ${mib} MiB compared, ` +
      `${minutes} virtual minutes`;
  }
}
