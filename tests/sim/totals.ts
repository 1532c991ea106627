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
  #doubtedBytes = 0;
  #mirroredBytes = 0;
  /** Mirrors that were opened after a power loss with a write-intent log. */
  withLog = 0;
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
    this.withLog += outcome.intent.checked;
    this.#doubtedBytes += outcome.intent.doubtedBytes;
    this.#mirroredBytes += outcome.intent.mirroredBytes;
    this.#virtualMs += outcome.virtualMs;
  }

  /** Share of what was mirrored that was in doubt after power losses. */
  get doubtedShare(): number {
    return this.#doubtedBytes / this.#mirroredBytes;
  }

  text(): string {
    const mib = Math.round(this.#blocks / 2048), minutes = Math.round(this.#virtualMs / 60_000);
    return `${this.seeds} seeds, ${this.failed} failed: ${this.#kills} crashes of the agent, ` +
      `${this.#powerLosses} power losses of its machine, ${this.#storeLosses} of the store's, ` +
      `${this.switches} switches, ${this.#writes} acknowledged writes, ${mib} MiB compared, ` +
      `${(100 * this.doubtedShare).toFixed(0)} % in doubt after ${this.withLog} power losses, ` +
      `${minutes} virtual minutes`;
  }
}
