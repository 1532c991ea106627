/** Calls that may sleep, and how to learn why one failed. */
import { errno, sysError } from "./libc.ts";

export interface Attempt {
  /** The call on a thread of the runtime's pool, whose errno nobody can read. */
  readonly slow: () => Promise<number>;
  /** The same call on this thread. */
  readonly here: () => number;
}

/**
 * Runs a call off this thread. When it fails it runs once more on this thread, because only then can errno be
 * read: what failed at once fails at once again. That second run may succeed, which counts; it must do no
 * harm after a first that failed.
 * @returns the call's result, or a negative errno.
 */
export async function attempt({ slow, here }: Attempt): Promise<number> {
  const result = await slow();
  if (result >= 0) return result;
  const again = here();
  return again >= 0 ? again : -errno();
}

/** As `attempt`. @throws {PsmaError} sys/permission, sys/errno-N: "Cannot {doing}: …". */
export async function mustSucceed(doing: string, call: Attempt): Promise<number> {
  const result = await attempt(call);
  if (result < 0) throw sysError(doing, result);
  return result;
}
