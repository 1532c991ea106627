/** Loops of the agent: rounds with pauses between them, which end with the agent. */
import type { Clock } from "../core/mod.ts";
import type { AgentContext } from "./context.ts";

/** Cuts a loop's wait short; a nudge while nobody waits counts for the next wait. */
export class Nudge {
  #next = new AbortController();

  now(): void {
    this.#next.abort();
  }

  /** Aborted by the next nudge, or already when there was one since the last call. */
  signal(): AbortSignal {
    const { signal } = this.#next;
    if (signal.aborted) this.#next = new AbortController();
    return signal;
  }
}

/** @param round answers with how long to wait for the next one, in milliseconds. */
export async function untilStopped(
  { clock, stopping }: AgentContext,
  round: () => Promise<number>,
  nudge: Nudge = new Nudge(),
): Promise<void> {
  while (!stopping.aborted) {
    const wait_ms = await round();
    await waitFor(Math.max(0, wait_ms), clock, AbortSignal.any([stopping, nudge.signal()]));
  }
}

async function waitFor(ms: number, clock: Clock, signal: AbortSignal): Promise<void> {
  await clock.sleep(ms, signal).catch(() => {}); // Cut short: then the next round begins now.
}
