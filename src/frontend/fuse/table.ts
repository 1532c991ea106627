/**
 * What all FUSE exports of a data-plane thread share: kinds of completions on the ring, an owner of request
 * slots, and the table that finds an export by its index. Handlers are registered once, because
 * neither the ring nor the requests forget them: exports come and go, this stays.
 *
 * A slot's memory is made present before a request is first read into it. The kernel takes a request off its
 * queue and then copies it; were this process killed while a page of the copy's destination had still to be
 * made, the copy would end there and the application would get EIO.
 */
import { FUSE_WRITE_PAYLOAD_BYTES } from "../../codec/mod.ts";
import { populateMemory, type Reactor, setIoFlusher } from "../../sys/mod.ts";
import { HEADROOM, type Requests, slotBytes } from "../../volume/mod.ts";
import { SessionTable } from "../session_table.ts";
import { ledgerOf } from "./ledger.ts";

/** An export as its completions see it. */
export interface FuseSession {
  onComplete(slot: number): void;
  onPoll(result: number, flags: number): void;
  onCancelled(): void;
  ask(): void;
}

export class FuseTable {
  readonly owner: number;
  readonly pollKind: number;
  readonly cancelKind: number;
  /** The slot arena, as the codec wants it. */
  readonly words: Uint32Array;
  /** Where each slot's request is read to: a WRITE's payload begins at the slot's data. */
  readonly buffers: readonly Uint8Array<ArrayBuffer>[];
  /** Which slots hold an unanswered request of which export (ledger.ts). */
  readonly marks: Uint32Array;
  /** 1 where a slot's memory is present. */
  readonly present: Uint8Array;
  readonly #sessions = new SessionTable<FuseSession>("FUSE export");
  readonly #requests: Requests;

  constructor(reactor: Reactor, requests: Requests) {
    this.#requests = requests;
    const { buffer, byteOffset, length } = requests.arena.bytes;
    this.words = new Uint32Array(buffer, byteOffset, length / 4);
    this.buffers = Array.from({ length: requests.count }, (_, slot) => {
      const at = requests.dataOffset(slot);
      return requests.arena.bytes.subarray(at - FUSE_WRITE_PAYLOAD_BYTES, at + requests.maxIo);
    });
    this.marks = ledgerOf(requests);
    this.present = new Uint8Array(requests.count);
    this.owner = requests.registerOwner((slot) => this.#of(slot).onComplete(slot));
    const { ring } = reactor;
    this.pollKind = ring.register((index, result, flags) => this.#at(index).onPoll(result, flags));
    this.cancelKind = ring.register((index) => this.#at(index).onCancelled());
    const ask = (session: FuseSession) => session.ask();
    reactor.afterBatch.push(() => this.#sessions.visitAll(ask));
    setIoFlusher();
  }

  /** @returns the export's index. */
  add(session: FuseSession): number {
    return this.#sessions.add(session);
  }

  remove(index: number): void {
    this.#sessions.remove(index);
  }

  /** Makes a slot's memory present. */
  prepare(slot: number): void {
    populateMemory(this.#requests.dataAddress(slot) - HEADROOM, slotBytes(this.#requests.maxIo));
    this.present[slot] = 1;
  }

  #of(slot: number): FuseSession {
    return this.#at(this.#requests.session[slot] as number);
  }

  #at(index: number): FuseSession {
    return this.#sessions.at(index);
  }
}

const tables = new WeakMap<Requests, FuseTable>();

/** The thread's table. */
export function fuseTable(reactor: Reactor, requests: Requests): FuseTable {
  let table = tables.get(requests);
  if (table === undefined) tables.set(requests, table = new FuseTable(reactor, requests));
  return table;
}
