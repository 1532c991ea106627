/** A broken invariant is a defect of ours: the thread dies and the supervisor recovers. */
export class BrokenInvariant extends Error {
  override readonly name = "BrokenInvariant";
}

/** Holds an invariant. @throws {BrokenInvariant} with `message` when it does not hold. */
export function assert(condition: unknown, message: string): asserts condition {
  if (!condition) throw new BrokenInvariant(message);
}

/** Unwraps what an invariant says is there. @throws {BrokenInvariant} naming `what` when it is not. */
export function need<T>(value: T | undefined | null, what: string): T {
  if (value === undefined || value === null) throw new BrokenInvariant(`${what} is missing`);
  return value;
}

/** Ends a switch over all kinds of a value: the compiler complains when a kind is left out. */
export function unreachable(value: never): never {
  throw new BrokenInvariant(`unreachable: ${JSON.stringify(value)}`);
}
