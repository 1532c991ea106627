/**
 * Keeps a FUSE connection open beyond the life of this process: a holder (sys/holder.ts) has its descriptor.
 * While both live the kernel does not end the connection, and when this process is killed, whoever uses the file
 * waits instead of failing.
 *
 * Faults: a holder that is killed is replaced, and that is told; where none can be started the export works
 * all the same, and it is told that a killed agent means I/O errors.
 */
import { need, PsmaError, toPsmaError } from "../../core/mod.ts";
import {
  closeFile,
  type Holder,
  killProcess,
  type Reactor,
  reapChild,
  startHolder,
  startTicks,
} from "../../sys/mod.ts";

/** What the next server has to know about a held connection. */
export interface FuseNote {
  readonly format: 1;
  /** Who serves it now: the next one begins when this process has ended. */
  readonly server_pid: number;
  readonly server_start_ticks: number;
  /** The largest request that INIT granted. */
  readonly max_io_bytes: number;
  /** INIT granted FUSE_NOTIFY_RESEND. */
  readonly resend: boolean;
  /** Where the holder keeps the requests' arena as well, for replay; else the kernel is asked to send again. */
  readonly arena: FuseArenaNote | null;
}

export interface FuseArenaNote {
  readonly slots: number;
  /** What slots of this export are marked with. */
  readonly mark: number;
}

export type FuseHolderEvent = (type: string, message: string) => void;

export interface FuseHolderOptions {
  readonly reactor: Reactor;
  /** Where the connection is mounted, as the kernel lists it: its holder is found by it. */
  readonly path: string;
  readonly fd: number;
  readonly maxIoBytes: number;
  readonly resend: boolean;
  readonly arena: (FuseArenaNote & { readonly fd: number }) | null;
  readonly onEvent: FuseHolderEvent;
}

const FORMAT = 1;
/** Something that kills holders as soon as they start must not keep this thread busy. */
const REPLACE_AFTER_MS = 100, REPLACE_AGAIN_AFTER_MS = 5000;

export class FuseHolder {
  readonly #options: FuseHolderOptions;
  #holder: Holder | undefined;
  #watch: Promise<void> | undefined;
  #ending = false;

  constructor(options: FuseHolderOptions) {
    this.#options = options;
  }

  /** @throws {PsmaError} sys/permission where its descriptor could not be taken from it, sys/errno-N. */
  start(): void {
    const { path, fd, arena } = this.#options;
    this.#holder = startHolder({
      subject: path,
      note: encodeFuseNote(this.#note()),
      descriptors: arena === null ? [fd] : [fd, arena.fd],
    });
    this.#watch = this.#replaceWhenGone(this.#holder);
  }

  /** Starts it where that is possible, else tells why not. */
  tryStart(): void {
    try {
      this.start();
    } catch (error) {
      this.#options.onEvent("export.not-held", notHeld(toPsmaError(error)));
    }
  }

  /** Ends the holder for good, without waiting for it. Idempotent. */
  release(): void {
    this.#ending = true;
    if (this.#holder) killProcess(this.#holder.pidfd);
  }

  /** As release; resolves when it has let go of the connection. */
  async end(): Promise<void> {
    this.release();
    if (this.#holder) await this.#watch;
  }

  #note(): FuseNote {
    const { maxIoBytes, resend, arena } = this.#options;
    return {
      format: FORMAT,
      server_pid: Deno.pid,
      server_start_ticks: need(startTicks(Deno.pid), "this process"),
      max_io_bytes: maxIoBytes,
      resend,
      arena: arena && { slots: arena.slots, mark: arena.mark },
    };
  }

  async #replaceWhenGone(holder: Holder): Promise<void> {
    const { reactor, onEvent } = this.#options;
    await reactor.readable(holder.pidfd);
    reapChild(holder.pid);
    closeFile(holder.pidfd);
    this.#holder = undefined;
    if (this.#ending) return;
    onEvent(
      "export.holder-lost",
      "The process that holds the export was ended; another takes over",
    );
    for (let wait_ms = REPLACE_AFTER_MS; !this.#ending; wait_ms = REPLACE_AGAIN_AFTER_MS) {
      await reactor.sleep(wait_ms);
      if (this.#ending) return;
      this.tryStart();
      if (this.#holder) return;
    }
  }
}

function notHeld({ message, hint }: PsmaError): string {
  const why = hint === undefined ? message : `${message} (${hint})`;
  return `A killed agent would mean I/O errors on this volume, because nothing can hold it: ${why}`;
}

/** One line, for the holder's command line. */
function encodeFuseNote(note: FuseNote): string {
  return JSON.stringify(note);
}

/** @throws {PsmaError} state/holder when another version of this program wrote it. */
export function decodeFuseNote(text: string, path: string): FuseNote {
  let note: Partial<FuseNote> | null = null;
  try {
    note = JSON.parse(text);
  } catch {
    // Not ours, then.
  }
  if (note?.format !== FORMAT) {
    throw new PsmaError("state/holder", `Cannot take over ${path}: its holder's note is unknown`, {
      hint:
        "Start the version of psma that served it, or let go of it: psma volume detach --force.",
    });
  }
  return note as FuseNote;
}
