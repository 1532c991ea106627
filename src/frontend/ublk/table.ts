/**
 * What all ublk exports of a data-plane thread share: a kind of completion on the ring, an owner of request
 * slots, and the table that finds an export by its index. Handlers are registered once, because neither the
 * ring nor the requests forget them: exports come and go, this stays.
 */
import { assert } from "../../core/mod.ts";
import { UBLK_DEPTH_MAX } from "../../codec/mod.ts";
import { type Reactor, setIoFlusher } from "../../sys/mod.ts";
import type { Requests } from "../../volume/mod.ts";
import { SessionTable } from "../session_table.ts";

/** An export as its completions see it. */
export interface UblkSession {
  /** @param result 0 when the tag has a request, else a negative errno. */
  onTag(tag: number, result: number): void;
  onComplete(slot: number): void;
  serveWaiting(): void;
}

const MAX_EXPORTS = 2 ** 31 / UBLK_DEPTH_MAX;

export class UblkTable {
  readonly owner: number;
  readonly kind: number;
  /** Of each slot's data, made once: a bigint per copy would be garbage per request. */
  readonly addresses: readonly bigint[];
  readonly #sessions = new SessionTable<UblkSession>("ublk export");

  constructor(reactor: Reactor, requests: Requests) {
    this.addresses = Array.from(
      { length: requests.count },
      (_, slot) => BigInt(requests.dataAddress(slot)),
    );
    this.owner = requests.registerOwner((slot) =>
      this.#at(requests.session[slot] as number).onComplete(slot)
    );
    this.kind = reactor.ring.register((index, result) =>
      this.#at(Math.floor(index / UBLK_DEPTH_MAX)).onTag(index % UBLK_DEPTH_MAX, result)
    );
    const serve = (session: UblkSession) => session.serveWaiting();
    reactor.afterBatch.push(() => {
      if (requests.freeCount > 0) this.#sessions.visitAll(serve);
    });
    // A hook that runs after ours may be the one that frees a slot.
    requests.onFree.push(() => {
      reactor.hooksWanted = true;
    });
    setIoFlusher();
  }

  /** What the ring carries for a tag of an export. Hot path. */
  indexOf(session: number, tag: number): number {
    return session * UBLK_DEPTH_MAX + tag;
  }

  /** @returns the export's index. */
  add(session: UblkSession): number {
    const index = this.#sessions.add(session);
    assert(index < MAX_EXPORTS, "too many ublk exports");
    return index;
  }

  remove(index: number): void {
    this.#sessions.remove(index);
  }

  #at(index: number): UblkSession {
    return this.#sessions.at(index);
  }
}

const tables = new WeakMap<Requests, UblkTable>();

/** The thread's table. */
export function ublkTable(reactor: Reactor, requests: Requests): UblkTable {
  let table = tables.get(requests);
  if (table === undefined) tables.set(requests, table = new UblkTable(reactor, requests));
  return table;
}
