/**
 * A FUSE export that outlives its server: its connection is held by a process of its own, and the next server takes
 * it over while everybody who uses the file waits.
 *
 * Take-over, in this order: the former server has ended, every thread of it, so that nothing it had begun can
 * land later; the connection is taken from the holder; what was read and not answered is replayed from the
 * former server's arena, or, where the kernel can, sent again by the kernel; a holder of our own has all; the
 * service begins. What the former server executed without answering is executed once more: requests say what
 * bytes shall be, not what is to change.
 *
 * Faults: what cannot be taken over now leaves everything held, so that it can be tried again; a connection that
 * is gone (unmounted, aborted) is nothing to take over. Not promised: requests that the kernel had not finished
 * handing over when a thread was killed in the middle of taking them are failed by the kernel itself; the
 * memory they are read into is therefore made present beforehand (table.ts).
 */
import { type Memory, PsmaError } from "../../core/mod.ts";
import { encodeFuseResend, FUSE_INIT_FLAG2, type FuseInit } from "../../codec/mod.ts";
import {
  closeFile,
  fileSize,
  findHolders,
  FUSE_TYPE,
  type Holder,
  isFuseConnected,
  killProcess,
  mapFile,
  mountsAt,
  openPidfd,
  type Reactor,
  realMountPoint,
  startTicks,
  sysError,
  takeDescriptor,
  unmapMemory,
  writeFuse,
} from "../../sys/mod.ts";
import { FuseExport } from "./export.ts";
import { decodeFuseNote, FuseHolder, type FuseHolderEvent, type FuseNote } from "./holder.ts";
import { heldArenaBytes, requestIn, strikeOff, unansweredSlots } from "./ledger.ts";
import type { FuseMount } from "./mount.ts";

export interface HeldFuseMount extends FuseMount {
  /** The memory file that holds the requests' arena: where it is given, it is held for replay. */
  readonly arenaFd: number | undefined;
  /** Something about the holder that the operator should know. */
  readonly onEvent: FuseHolderEvent;
}

const SERVER_ENDS_WITHIN_MS = 10_000;

export class HeldFuseExport {
  readonly #export: FuseExport;
  #holder: FuseHolder | undefined;

  private constructor(options: HeldFuseMount, open: (options: FuseMount) => FuseExport) {
    this.#export = open({
      ...options,
      onEnd: (error) => {
        // A connection that has ended holds nobody.
        this.#holder?.release();
        options.onEnd(error);
      },
    });
  }

  /** As FuseExport.mount; resolves when the kernel has greeted and a holder stands by, or cannot. */
  static async mount(options: HeldFuseMount): Promise<HeldFuseExport> {
    const held = new HeldFuseExport(options, FuseExport.mount);
    const init = await held.#export.initialised();
    if (init === undefined || held.#export.ended) return held;
    const resend = isGranted(init);
    if (resend || options.arenaFd !== undefined) {
      held.#prepareHolder(options, options.requests.maxIo, resend).tryStart();
    } else {
      options.onEvent(
        "export.not-held",
        "A killed agent would mean I/O errors on this volume: the kernel cannot send requests again",
      );
    }
    return held;
  }

  /**
   * Goes on serving what a former process left at the path. @returns undefined where there is nothing of it.
   * @throws {PsmaError} state/served while that process lives, state/holder, sys/permission; then all stays held.
   */
  static async takeOver(options: HeldFuseMount): Promise<HeldFuseExport | undefined> {
    const { path, reactor } = options;
    const found = findHolders(realMountPoint(path));
    try {
      const former = found.map((holder) => ({ holder, note: decodeFuseNote(holder.note, path) }));
      for (const { note } of former) await untilServerEnded(reactor, path, note);
      const latest = former.at(-1);
      if (latest === undefined) return undefined;
      const fd = connectionOf(latest.holder, path);
      const held = fd === undefined ? undefined : await HeldFuseExport.#adopt(options, fd, former);
      // From here on ours holds, or there is nothing to hold.
      for (const { pidfd } of found) killProcess(pidfd);
      return held;
    } finally {
      for (const { pidfd } of found) closeFile(pidfd);
    }
  }

  static async #adopt(
    options: HeldFuseMount,
    fd: number,
    former: readonly Former[],
  ): Promise<HeldFuseExport> {
    const { path, requests } = options;
    const maxIoBytes = Math.max(...former.map(({ note }) => note.max_io_bytes));
    const resend = former.every(({ note }) => note.resend);
    const held = new HeldFuseExport(options, (mount) => FuseExport.adopt(mount, fd));
    try {
      if (maxIoBytes > requests.maxIo) {
        throw new PsmaError("state/holder", `Cannot take over ${path}: its requests are too large`);
      }
      // What is in an arena is struck off there as it is answered: a kill in between loses nothing.
      for (const one of former) await replayArena(held.#export, one);
      held.#prepareHolder(options, maxIoBytes, resend).start();
      if (former.some(({ note }) => note.arena === null)) askAgain(fd, path);
    } catch (error) {
      await held.#holder?.end();
      held.#export.abandon();
      throw error;
    }
    held.#export.begin();
    return held;
  }

  #prepareHolder(options: HeldFuseMount, maxIoBytes: number, resend: boolean): FuseHolder {
    const { reactor, requests, path, arenaFd, onEvent } = options;
    const { fd, mark } = this.#export;
    const arena = arenaFd === undefined ? null : { fd: arenaFd, slots: requests.count, mark };
    return this.#holder = new FuseHolder({
      reactor,
      path: realMountPoint(path),
      fd,
      maxIoBytes,
      resend,
      arena,
      onEvent,
    });
  }

  /** As FuseExport.close: afterwards nothing holds the connection. Idempotent. */
  async close(): Promise<void> {
    await this.#holder?.end();
    await this.#export.close();
  }
}

/** A holder of a former server's, and what it says. */
interface Former {
  readonly holder: Holder;
  readonly note: FuseNote;
}

function isGranted({ flags2 }: FuseInit): boolean {
  return (flags2 & FUSE_INIT_FLAG2.hasResend) !== 0;
}

function askAgain(fd: number, path: string): void {
  const result = writeFuse(fd, encodeFuseResend());
  if (result < 0) throw sysError(`ask for the requests of ${path} again`, result);
}

/** Executes and answers what is unanswered in the arena of a former server, one after the other. */
async function replayArena(exported: FuseExport, { holder, note }: Former): Promise<void> {
  const { arena, max_io_bytes } = note;
  if (arena === null) return;
  const { slots, mark } = arena, bytes = heldArenaBytes(slots, max_io_bytes);
  const fd = takeDescriptor(holder.pidfd, 1);
  let memory: Memory | undefined;
  try {
    // Mapped beyond its end it would be deadly to read.
    if (fileSize(fd) < bytes) {
      throw new PsmaError("state/holder", `Cannot replay ${exported.path}: its arena is too short`);
    }
    memory = mapFile(fd, bytes);
    const dead = { memory, slots, maxIo: max_io_bytes };
    for (const slot of unansweredSlots(dead, mark)) {
      await exported.replay(requestIn(dead, slot));
      strikeOff(dead, slot);
    }
  } finally {
    if (memory) unmapMemory(memory);
    closeFile(fd);
  }
}

/** @returns the connection, undefined where it is mounted no more or was aborted. @throws {PsmaError} sys/permission */
function connectionOf(holder: Holder, path: string): number | undefined {
  if (mountsAt(path).at(-1)?.type !== FUSE_TYPE) return undefined;
  const fd = takeDescriptor(holder.pidfd, 0);
  if (isFuseConnected(fd)) return fd;
  closeFile(fd);
  return undefined;
}

/** @throws {PsmaError} state/served when it does not end in time. */
async function untilServerEnded(reactor: Reactor, path: string, note: FuseNote): Promise<void> {
  const { server_pid, server_start_ticks } = note;
  const pidfd = openPidfd(server_pid);
  if (pidfd === undefined) return;
  try {
    // Another process has its number by now.
    if (startTicks(server_pid) !== server_start_ticks) return;
    const late = reactor.sleep(SERVER_ENDS_WITHIN_MS).then(() => true);
    if (!await Promise.race([reactor.readable(pidfd).then(() => false), late])) return;
  } finally {
    closeFile(pidfd);
  }
  throw new PsmaError("state/served", `Cannot take over ${path}: process ${server_pid} serves it`, {
    hint: "Stop that process; what it serves goes on as soon as it has ended.",
  });
}
