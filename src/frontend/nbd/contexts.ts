/**
 * What an NBD client may know of an export beside its bytes: the one metadata context that we have,
 * `base:allocation`, and how clients ask for it. Source: proto.md, "Metadata querying".
 */
import { NBD_ALLOCATION, type NbdContext } from "../../codec/mod.ts";

/** The id of `base:allocation` on every connection that chose it. */
const ALLOCATION_ID = 1;

const NAMESPACE = "base:";

/** True when each query names a namespace; others than ours are no error. */
export function queriesFit(queries: readonly string[]): boolean {
  return queries.every((query) => query.indexOf(":") > 0);
}

/** The answer to LIST: everything for no query; a namespace alone stands for all in it. Ids mean nothing there. */
export function listedContexts(queries: readonly string[]): readonly NbdContext[] {
  const listed = queries.length === 0 ||
    queries.some((query) => query === NAMESPACE || query === NBD_ALLOCATION);
  return listed ? [{ id: 0, name: NBD_ALLOCATION }] : [];
}

/** The answer to SET: only what is named in full. */
export function chosenContexts(queries: readonly string[]): readonly NbdContext[] {
  return queries.includes(NBD_ALLOCATION) ? [{ id: ALLOCATION_ID, name: NBD_ALLOCATION }] : [];
}
