/**
 * The exports of an NBD server and who may write to them.
 *
 * A fenced server is a data store's: a client names `volume@EPOCH` to write. The epoch only rises; a lower
 * one is refused. A writer supersedes the writers before it, because they are the same agent before it
 * reconnected, or its predecessor; it begins only when their requests have drained, so that no old write
 * can land after a new one.
 */
import { NBD_FLAG, NBD_REP } from "../../codec/mod.ts";
import type { Range } from "../../volume/mod.ts";
import { REPLY_STYLE } from "./reply.ts";

/** What a volume is to a frontend. Completion comes through the requests' owner. */
export interface ServedVolume {
  readonly name: string;
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  submit(slot: number): void;
  /**
   * Runs of bytes in [from, from + length) that may read as something else than zeros, ascending, not
   * overlapping: as the side knows them that reads come from.
   */
  dataExtents(from: number, length: number): Promise<readonly Range[]>;
}

/** A session as its export sees it. */
export interface ExportSession {
  export: NbdExport | undefined;
  readOnly: boolean;
  /** The fencing number that a writer named; undefined for readers and unfenced sessions. */
  epoch: number | undefined;
  /** Requests that the volume has. */
  readonly submitted: number;
  /** Ends the session now. @param reason for the event log; undefined when nobody did wrong. */
  cut(reason: string | undefined): void;
}

export interface NbdExport {
  readonly name: string;
  readonly description: string;
  readonly volume: ServedVolume;
  readonly readOnly: boolean;
  /** The lowest epoch that may write. */
  epoch: number;
  readonly sessions: Set<ExportSession>;
  /** Sessions that ended while the volume still had requests of theirs. */
  readonly draining: Set<ExportSession>;
  /** Called, and forgotten, when nothing is draining any more. */
  drainWaiters: (() => void)[];
}

/** A client's name for an export, accepted. */
export interface Grant {
  readonly export: NbdExport;
  readonly readOnly: boolean;
  readonly epoch: number | undefined;
}

/** A client's name for an export, refused: the option reply's type and a sentence. */
export interface Refusal {
  readonly type: number;
  readonly message: string;
}

export class NbdExports {
  readonly #byName = new Map<string, NbdExport>();

  constructor(readonly fenced: boolean) {}

  get(name: string): NbdExport | undefined {
    return this.#byName.get(name);
  }

  set(entry: NbdExport): void {
    this.#byName.set(entry.name, entry);
  }

  delete(name: string): void {
    this.#byName.delete(name);
  }

  all(): readonly NbdExport[] {
    return [...this.#byName.values()];
  }

  /** Decides a name that a client sent: `volume`, `volume@EPOCH` where fenced, or nothing for the only export. */
  decide(asked: string): Grant | Refusal {
    const { name, epoch } = this.fenced ? splitEpoch(asked) : { name: asked, epoch: undefined };
    const entry = this.#byName.get(name) ?? (name === "" ? this.#onlyOne() : undefined);
    if (!entry) return { type: NBD_REP.errUnknown, message: `there is no export ${asked}` };
    if (epoch !== undefined && epoch < entry.epoch) {
      return {
        type: NBD_REP.errPolicy,
        message: `epoch ${epoch} of ${name} is fenced: the epoch is ${entry.epoch}`,
      };
    }
    const readOnly = entry.readOnly || entry.volume.readOnly ||
      (this.fenced && epoch === undefined);
    return { export: entry, readOnly, epoch: readOnly ? undefined : epoch };
  }

  #onlyOne(): NbdExport | undefined {
    return this.#byName.size === 1 ? this.all()[0] : undefined;
  }

  /** Gives a session its export; a fenced writer cuts those before it. */
  enter(session: ExportSession, grant: Grant): void {
    const entry = grant.export;
    if (grant.epoch !== undefined) {
      entry.epoch = Math.max(entry.epoch, grant.epoch);
      for (const other of [...entry.sessions]) {
        if (other.epoch !== undefined) other.cut("a newer writer superseded it");
      }
    }
    session.export = entry;
    session.readOnly = grant.readOnly;
    session.epoch = grant.epoch;
    entry.sessions.add(session);
  }

  /** True while a fenced writer must wait for those before it. */
  mustWait(session: ExportSession): boolean {
    return session.epoch !== undefined && (session.export?.draining.size ?? 0) > 0;
  }

  /** A session was cut: its requests, if any, drain. */
  leave(session: ExportSession): void {
    const entry = session.export;
    if (!entry) return;
    entry.sessions.delete(session);
    if (session.submitted > 0) entry.draining.add(session);
  }

  drained(session: ExportSession): void {
    const entry = session.export;
    if (!entry?.draining.delete(session) || entry.draining.size > 0) return;
    const waiters = entry.drainWaiters;
    entry.drainWaiters = [];
    for (const resume of waiters) resume();
  }
}

/**
 * The transmission flags of a grant, honestly: a fenced writer is alone, so it has one connection.
 * @param style REPLY_STYLE that was negotiated. @param hasContext BLOCK_STATUS may be asked.
 */
export function transmissionFlags(grant: Grant, style: number, hasContext: boolean): number {
  const base = NBD_FLAG.hasFlags | NBD_FLAG.sendFlush | NBD_FLAG.sendFua | NBD_FLAG.sendCache |
    (style === REPLY_STYLE.simple ? 0 : NBD_FLAG.sendDf) |
    (style === REPLY_STYLE.extended && hasContext ? NBD_FLAG.blockStatusPayload : 0);
  if (grant.readOnly) return base | NBD_FLAG.readOnly | NBD_FLAG.canMultiConn;
  return base | NBD_FLAG.sendTrim | NBD_FLAG.sendWriteZeroes | NBD_FLAG.sendFastZero |
    (grant.epoch === undefined ? NBD_FLAG.canMultiConn : 0);
}

/** Tells the two decisions apart. */
export function isRefusal(decision: Grant | Refusal): decision is Refusal {
  return "message" in decision;
}

function splitEpoch(asked: string): { name: string; epoch: number | undefined } {
  const match = /^(.*)@(\d{1,15})$/.exec(asked);
  if (!match) return { name: asked, epoch: undefined };
  return { name: match[1] ?? "", epoch: Number(match[2]) };
}
