/** System calls that may fail: the result with its errno, read on the thread that made the call. */
import { errno, sysError } from "./libc.ts";

/** @returns the call's result, or a negative errno. */
export function attempt(call: () => number): number {
  const result = call();
  return result >= 0 ? result : -errno();
}

/** As `attempt`. @throws {PsmaError} sys/permission, sys/errno-N: "Cannot {doing}: …". */
export function mustSucceed(doing: string, call: () => number): number {
  const result = attempt(call);
  if (result < 0) throw sysError(doing, result);
  return result;
}
