/**
 * A FUSE export that outlives its server: its connection is held by a process of its own, and the next server takes
 * it over while everybody who uses the file waits.
 *
 * Take-over, in this order: the former server has ended, every thread of it, so that nothing it had begun can
 * land later; the connection is taken from the holder; a holder of our own has it; the kernel sends again
 * what was read and not answered. What the former server executed without answering is executed once more:
 * requests say what bytes shall be, not what is to change.
 *
 * Faults: what cannot be taken over now leaves everything held, so that it can be tried again; a connection that
 * is gone (unmounted, aborted) is nothing to take over. Not promised: requests that the kernel had not finished
 * handing over when a thread was killed in the middle of taking them are failed by the kernel itself; the
 * memory they are read into is therefore made present beforehand (fuse_table.ts).
 */
import { PsmaError } from "../core/mod.ts";
import { encodeFuseResend, FUSE_INIT_FLAG2 } from "../codec/mod.ts";
import {
  closeFile,
  findHolders,
  FUSE_TYPE,
  type Holder,
  isFuseConnected,
  killProcess,
  mountsAt,
  openPidfd,
  type Reactor,
  realMountPoint,
  startTicks,
  sysError,
  takeDescriptor,
  writeFuse,
} from "../sys/mod.ts";
import { FuseExport } from "./fuse.ts";
import { decodeFuseNote, FuseHolder, type FuseHolderEvent, type FuseNote } from "./fuse_holder.ts";
import type { FuseMount } from "./fuse_mount.ts";

export interface HeldFuseMount extends FuseMount {
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
    const resend = (init.flags2 & FUSE_INIT_FLAG2.hasResend) !== 0;
    if (!resend) return held;
    held.#holder = holderOf(options, held.#export.fd, options.requests.maxIo, resend);
    held.#holder.tryStart();
    return held;
  }

  /**
   * Goes on serving what a former process left at the path. @returns undefined where there is nothing of it.
   * @throws {PsmaError} state/served while that process lives, state/holder, sys/permission; then all stays held.
   */
  static async takeOver(options: HeldFuseMount): Promise<HeldFuseExport | undefined> {
    const { path, reactor } = options;
    const holders = findHolders(realMountPoint(path));
    try {
      const notes = holders.map((holder) => decodeFuseNote(holder.note, path));
      for (const note of notes) await untilServerEnded(reactor, path, note);
      const holder = holders.at(-1), note = notes.at(-1);
      if (holder === undefined || note === undefined) return undefined;
      const fd = connectionOf(holder, path);
      const held = fd === undefined ? undefined : await HeldFuseExport.#adopt(options, fd, note);
      // Those of the former server: from here on ours holds, or there is nothing to hold.
      for (const { pidfd } of holders) killProcess(pidfd);
      return held;
    } finally {
      for (const { pidfd } of holders) closeFile(pidfd);
    }
  }

  static async #adopt(
    options: HeldFuseMount,
    fd: number,
    { max_io_bytes, resend }: FuseNote,
  ): Promise<HeldFuseExport> {
    const { path, requests } = options;
    const holder = holderOf(options, fd, max_io_bytes, resend);
    try {
      if (max_io_bytes > requests.maxIo) {
        throw new PsmaError("state/holder", `Cannot take over ${path}: its requests are too large`);
      }
      holder.start();
      const result = writeFuse(fd, encodeFuseResend());
      if (result < 0) throw sysError(`ask for the requests of ${path} again`, result);
    } catch (error) {
      await holder.end();
      closeFile(fd);
      throw error;
    }
    const held = new HeldFuseExport(options, (mount) => FuseExport.adopt(mount, fd));
    held.#holder = holder;
    return held;
  }

  /** As FuseExport.close: afterwards nothing holds the connection. Idempotent. */
  async close(): Promise<void> {
    await this.#holder?.end();
    await this.#export.close();
  }
}

function holderOf(
  { reactor, path, onEvent }: HeldFuseMount,
  fd: number,
  maxIoBytes: number,
  resend: boolean,
): FuseHolder {
  return new FuseHolder({ reactor, path: realMountPoint(path), fd, maxIoBytes, resend, onEvent });
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
