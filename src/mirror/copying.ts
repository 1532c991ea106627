/** Measures and follows the schedule while something is copied: limits may change meanwhile. */
import { Signal, type Turns } from "../core/mod.ts";
import type { Scheduler } from "./scheduler.ts";

const LOOK_EVERY_MS = 250;

/** Does the work as a round of the schedule. @param work says whether all was copied. @param look is called often. */
export async function whileCopying(
  turns: Turns,
  scheduler: Scheduler,
  work: () => Promise<boolean>,
  look: () => void,
): Promise<boolean> {
  const ended = new Signal(turns);
  let isDone = false, isComplete = false;
  const looking = (async () => {
    for (;;) {
      await ended.or(turns.sleep(LOOK_EVERY_MS));
      if (isDone) return;
      look();
    }
  })();
  scheduler.roundBegins();
  try {
    return isComplete = await work();
  } finally {
    isDone = true;
    ended.tell();
    await looking;
    scheduler.roundEnds(isComplete);
  }
}
