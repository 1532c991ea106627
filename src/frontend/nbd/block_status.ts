/**
 * Answers to NBD's BLOCK_STATUS: which runs of a volume hold data, and which read as zeros. Off the hot
 * path: asking a backend takes turns. The request's slot is held until its answer has left, so a session
 * cannot have more of them than of any other request, and no more than RUNNING_MAX of them are worked on.
 *
 * An answer may cover less than was asked for; clients then go on where it ends. It does where there are more
 * extents than fit, and where looking further would take too long. A backend that cannot tell, or fails to,
 * makes it one run of data: that is always true.
 */
import {
  decodeStatusQuery,
  encodeBlockStatus,
  encodeExtendedBlockStatus,
  NBD_CMD_FLAG,
  NBD_ERROR,
  NBD_STATE,
  type NbdExtent,
} from "../../codec/mod.ts";
import type { Requests } from "../../volume/mod.ts";
import type { ServedVolume } from "./exports.ts";
import { REPLY_STYLE } from "./reply.ts";

const RUNNING_MAX = 4;
const EXTENTS_MAX = 2048, EXTENT_BYTES_MAX = 16, PREFIX_BYTES = 8;
/** What is asked of the backend at once grows from the first to the second: the runs in it are counted only after. */
const WINDOW_BYTES_FIRST = 1 << 20, WINDOW_BYTES_MAX = 2 ** 30;
const WINDOWS_MAX = 24;
const DATA = 0, HOLE = NBD_STATE.hole | NBD_STATE.zero;

/** What it needs of the session that asks. */
export interface StatusSession {
  /** False once it was cut: nobody reads the answer then. */
  readonly alive: boolean;
  readonly style: number;
  /** The id of the only context there is; undefined when none was chosen. */
  readonly contextId: number | undefined;
  readonly volume: ServedVolume;
  /** Lets promises go on that no completion resolves. */
  wake(): void;
  /** The slot is done, with `errno`, or with `length` bytes of payload at the start of its data. */
  statusDone(slot: number): void;
}

export class NbdBlockStatus {
  #running = 0;
  readonly #waiting: number[] = [];
  /** Command flags and payload length per slot, from `start` to the answer. */
  readonly #asked = new Map<number, { readonly flags: number; readonly payload: number }>();

  constructor(readonly requests: Requests, readonly session: StatusSession) {}

  /**
   * Takes a request whose slot is filled in.
   * @param payload bytes at the start of the slot's data that came with it.
   * @returns 0, or the NBD error to refuse it with, and then nothing was taken.
   */
  start(slot: number, flags: number, payload: number): number {
    const { requests, session } = this;
    if (session.style === REPLY_STYLE.simple || session.contextId === undefined) {
      return NBD_ERROR.invalid;
    }
    if (payload > 0 && !this.#takeQuery(slot, payload)) return NBD_ERROR.invalid;
    const at = requests.at[slot] as number, length = requests.length[slot] as number;
    if (!(length > 0) || at + length > session.volume.sizeBytes) return NBD_ERROR.invalid;
    this.#asked.set(slot, { flags, payload });
    this.#waiting.push(slot);
    this.#next();
    return 0;
  }

  /** Reads the payload of a request that names its contexts, which can only be ours. */
  #takeQuery(slot: number, payload: number): boolean {
    const { requests, session } = this, offset = requests.dataOffset(slot);
    const query = decodeStatusQuery(requests.arena.bytes.subarray(offset, offset + payload));
    if (!query || query.contextIds.some((id) => id !== session.contextId)) return false;
    requests.length[slot] = query.length;
    return true;
  }

  #next() {
    while (this.#running < RUNNING_MAX) {
      const slot = this.#waiting.shift();
      if (slot === undefined) return;
      this.#running++;
      this.#answer(slot);
    }
  }

  /** Never rejects. */
  async #answer(slot: number): Promise<void> {
    const { requests, session } = this;
    const { flags, payload } = this.#asked.get(slot) ?? { flags: 0, payload: 0 };
    const at = requests.at[slot] as number, length = requests.length[slot] as number;
    // A query that names no context is answered for none.
    const silent = payload === PREFIX_BYTES || !session.alive;
    const extents = silent ? [] : await this.#extents(at, length, flags);
    this.#asked.delete(slot);
    requests.length[slot] = silent ? 0 : this.#write(slot, extents);
    this.#running--;
    session.statusDone(slot);
    this.#next();
  }

  async #extents(at: number, length: number, flags: number): Promise<readonly NbdExtent[]> {
    const { volume } = this.session;
    const fit = Math.floor((this.requests.maxIo - PREFIX_BYTES) / EXTENT_BYTES_MAX);
    const most = (flags & NBD_CMD_FLAG.reqOne) !== 0 ? 1 : Math.min(EXTENTS_MAX, fit);
    try {
      return await mapExtents({ volume, at, length, most }, () => this.session.wake());
    } catch {
      return [{ length: Math.min(length, 0xffffffff), flags: DATA }];
    }
  }

  #write(slot: number, extents: readonly NbdExtent[]): number {
    const { requests, session } = this;
    const status = { contextId: session.contextId ?? 0, extents };
    const bytes = session.style === REPLY_STYLE.extended
      ? encodeExtendedBlockStatus(status)
      : encodeBlockStatus(status);
    requests.arena.bytes.set(bytes, requests.dataOffset(slot));
    return bytes.length;
  }
}

/**
 * Runs of data and of holes from `at` on, ascending, neighbours of different kinds: at least one, at most
 * `most`, together no longer than `length`.
 * @param wake called before each question to the volume. @throws what the volume does.
 */
export async function mapExtents(
  asked: {
    readonly volume: Pick<ServedVolume, "dataExtents">;
    readonly at: number;
    readonly length: number;
    readonly most: number;
  },
  wake: () => void,
): Promise<readonly NbdExtent[]> {
  const { volume, at, length, most } = asked, end = at + length;
  const extents: { length: number; flags: number }[] = [];
  const append = (bytes: number, flags: number) => {
    const last = extents.at(-1);
    if (last?.flags === flags) last.length += bytes;
    else if (bytes > 0) extents.push({ length: bytes, flags });
  };
  let position = at, window = WINDOW_BYTES_FIRST;
  for (let asks = 0; asks < WINDOWS_MAX && position < end && extents.length <= most; asks++) {
    const to = Math.min(end, position + window);
    wake();
    for (const run of await volume.dataExtents(position, to - position)) {
      append(run.at - position, HOLE);
      append(run.length, DATA);
      position = run.at + run.length;
    }
    append(to - position, HOLE);
    position = to;
    window = Math.min(window * 2, WINDOW_BYTES_MAX);
  }
  return extents.slice(0, most);
}
