/** What another process has claimed: one that was killed may have it a moment longer. */
import { PsmaError, type Turns } from "../core/mod.ts";

/** The threads of a process that was killed, and what its ring had under way, may end a moment after it. */
export const CLAIM_WITHIN_MS = 10_000;
export const CLAIM_EVERY_MS = 20;

/** Opens what another process may have, and waits a moment for it. @throws what `open` does, state/in-use after that moment. */
export async function whenFree<T>(turns: Turns, open: () => T | Promise<T>): Promise<T> {
  for (let waitedMs = 0;; waitedMs += CLAIM_EVERY_MS) {
    try {
      return await open();
    } catch (error) {
      const isTaken = error instanceof PsmaError && error.code === "state/in-use";
      if (!isTaken || waitedMs >= CLAIM_WITHIN_MS) throw error;
    }
    await turns.sleep(CLAIM_EVERY_MS);
  }
}
