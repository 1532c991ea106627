/**
 * Where an export holds data, asked by BLOCK_STATUS with `base:allocation`. Off the hot path.
 *
 * The answer errs on one side only: whatever the server does not say reads as zeros counts as data, and a
 * hole too short to be worth a word does too. So a lost connection, an error, or a server that tells nothing
 * costs time, never a byte.
 */
import { NBD_CMD, NBD_STATE } from "../../codec/mod.ts";
import type { Extent } from "../backend.ts";
import type { Piece } from "./piece.ts";

/** Bounds the list: when it is full, holes below twice the length so far are left out. */
const EXTENTS_MAX = 262_144;
/** Holes shorter than this are not worth telling: the unit in which changes are tracked. */
const HOLE_BYTES_MIN = 65_536;

/** Runs of data in ascending order, merged across short holes. */
export class DataRuns {
  #extents: { at: number; length: number }[] = [];
  #holeBytesMin = HOLE_BYTES_MIN;

  constructor(readonly extentsMax: number = EXTENTS_MAX) {}

  get extents(): readonly Extent[] {
    return this.#extents;
  }

  /** Adds a run that begins at or after the end of those before. */
  add(at: number, length: number): void {
    if (length <= 0) return;
    this.#append(at, length);
    while (this.#extents.length > this.extentsMax) {
      this.#holeBytesMin *= 2;
      const all = this.#extents;
      this.#extents = [];
      for (const extent of all) this.#append(extent.at, extent.length);
    }
  }

  #append(at: number, length: number) {
    const last = this.#extents.at(-1);
    if (last && at - (last.at + last.length) < this.#holeBytesMin) {
      last.length = at + length - last.at;
    } else this.#extents.push({ at, length });
  }
}

/** One question about a range, and how far its answer has come. */
export class StatusQuestion {
  readonly piece: Piece;
  #at: number;
  readonly #end: number;

  constructor(readonly runs: DataRuns, at: number, length: number) {
    this.piece = { type: NBD_CMD.blockStatus, flags: 0, at, length, payload: 0 };
    this.#at = at;
    this.#end = at + length;
  }

  /** Bytes from the start of the range that have been told. */
  get told(): number {
    return this.#at - this.piece.at;
  }

  /** The server's last extent may reach beyond what was asked: that much is left for the next question. */
  onExtent(length: number, flags: number): void {
    const end = Math.min(this.#at + length, this.#end);
    if ((flags & NBD_STATE.zero) === 0) this.runs.add(this.#at, end - this.#at);
    this.#at = end;
  }
}
