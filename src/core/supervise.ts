/** Background promises go through here, so that none floats and every failure is said. */
import type { Log } from "./log.ts";
import { toPsmaError } from "./errors.ts";

/** Lets `promise` run on its own; a rejection is logged with its code under `name`. Never rejects. */
export function supervise(name: string, promise: Promise<unknown>, log: Log): Promise<void> {
  return promise.then(() => {}, (error: unknown) => {
    const failure = toPsmaError(error);
    log.error(`${name} failed`, { code: failure.code, reason: failure.message });
  });
}
