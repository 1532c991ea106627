/**
 * Reads, writes and cache requests that are larger than a slot, from clients that did not ask for our block
 * sizes and so may expect LARGE_BYTES_MAX. They are done in parts, one after the other, in one slot at a time,
 * while nothing else of the session is under way: so nothing has to be kept apart on the socket, and nobody
 * can wait for slots that he holds himself. Slower than requests that fit, and meant to be rare.
 *
 * Each part of a write has a slot of its own: the volume may be done with a part that is still on its way to a
 * mirror that was left behind, and the slot is the volume's until it has landed.
 *
 * Faults: bounds are judged for the whole before the first part, so what does not fit changes nothing. A part
 * that fails ends the request with its error: parts of a write before it have been written. A simple reply
 * that has begun cannot say so any more; the session is cut then, as the specification asks.
 */
import {
  NBD_CHUNK_FLAG,
  NBD_CMD,
  NBD_CMD_FLAG,
  NBD_ERROR,
  type NbdRequest,
} from "../../codec/mod.ts";
import type { Requests } from "../../volume/mod.ts";
import type { ServedVolume } from "./exports.ts";
import { type NbdReplies, REPLY_STYLE } from "./reply.ts";

/** What a client that negotiated no sizes may send or ask for ("Block size constraints"). */
export const LARGE_BYTES_MAX = 32 * 1024 * 1024;

/** What it needs of its session. */
export interface LargeSession {
  readonly style: number;
  readonly volume: ServedVolume;
  /** Receives `length` bytes into the slot, then hands it to the volume. */
  takePart(slot: number, length: number): void;
  submitPart(slot: number): void;
  /** Lets go of the slot; `goOn` follows with another. */
  changeSlot(slot: number): void;
  /** Sends what begins `headerBytes` before the slot's data; `partSent` follows. */
  sendPart(slot: number, headerBytes: number, dataBytes: number): void;
  /** Answers without data and lets go of the slot. */
  replyPart(slot: number): void;
  /** Skips so much of what comes. */
  skipPayload(length: number): void;
  /** The session may go on with the next request. */
  largeEnded(): void;
  /** Lets go of the slot and ends the session. */
  giveUp(slot: number, reason: string): void;
}

export class NbdLargeRequest {
  /** True from `begin` until `largeEnded`. */
  active = false;
  /** True while it has no slot. */
  wantsSlot = false;
  #type = 0;
  #code = 0;
  #flags = 0;
  #cookieHigh = 0;
  #cookieLow = 0;
  #at = 0;
  #length = 0;
  #done = 0;

  constructor(
    readonly requests: Requests,
    readonly replies: NbdReplies,
    readonly session: LargeSession,
  ) {}

  /** The error to refuse a large request with, judged as a whole; 0 for one that can begin. */
  refusal(request: NbdRequest): number {
    const { at, length, type, flags } = request;
    if (length > LARGE_BYTES_MAX) return NBD_ERROR.invalid;
    if (type === NBD_CMD.read && (flags & NBD_CMD_FLAG.df) !== 0) return NBD_ERROR.overflow;
    if (at + length <= this.session.volume.sizeBytes) return 0;
    return type === NBD_CMD.write ? NBD_ERROR.noSpace : NBD_ERROR.invalid;
  }

  /** Takes over a request that was not refused, with its slot. */
  begin(slot: number, request: NbdRequest): void {
    this.active = true;
    this.#type = request.type;
    this.#code = this.requests.code[slot] as number;
    this.#flags = this.requests.flags[slot] as number;
    this.#cookieHigh = request.cookieHigh;
    this.#cookieLow = request.cookieLow;
    this.#at = request.at;
    this.#length = request.length;
    this.#done = 0;
    this.#part(slot);
  }

  /** Forgets what was under way: the session was cut. */
  reset(): void {
    this.active = this.wantsSlot = false;
  }

  /** The next part, in a slot that was just taken for the session. */
  goOn(slot: number): void {
    const { requests } = this;
    requests.code[slot] = this.#code;
    requests.flags[slot] = this.#flags;
    requests.cookieHigh[slot] = this.#cookieHigh;
    requests.cookieLow[slot] = this.#cookieLow;
    this.wantsSlot = false;
    this.#part(slot);
  }

  #part(slot: number) {
    const { requests, session } = this;
    const length = Math.min(requests.maxIo, this.#length - this.#done);
    requests.at[slot] = this.#at + this.#done;
    requests.length[slot] = length;
    if (this.#type === NBD_CMD.write) session.takePart(slot, length);
    else session.submitPart(slot);
  }

  /** The volume is done with a part. */
  partDone(slot: number): void {
    const { requests, session } = this;
    const length = requests.length[slot] as number;
    if (requests.errno[slot] !== 0) return this.#fail(slot, length);
    if (this.#type === NBD_CMD.read) {
      return session.sendPart(slot, this.#header(slot, length), length);
    }
    this.#done += length;
    if (this.#done === this.#length) return this.#end(slot);
    if (this.#type !== NBD_CMD.write) return this.#part(slot);
    this.wantsSlot = true;
    session.changeSlot(slot);
  }

  /** The header in front of a part of a read. */
  #header(slot: number, length: number): number {
    const { style } = this.session, at = this.#at + this.#done;
    if (style === REPLY_STYLE.simple) {
      return this.#done === 0 ? this.replies.simpleHeader(slot, 0) : 0;
    }
    const flags = this.#done + length === this.#length ? NBD_CHUNK_FLAG.done : 0;
    return this.replies.dataHeader(slot, style, flags, this.#at, at, length);
  }

  /** A part of a read has left. @returns true when it was the last: the slot is the session's again. */
  partSent(slot: number): boolean {
    this.#done += this.requests.length[slot] as number;
    if (this.#done < this.#length) {
      this.#part(slot);
      return false;
    }
    this.active = false;
    this.session.largeEnded();
    return true;
  }

  #fail(slot: number, length: number) {
    if (this.#type === NBD_CMD.write) {
      this.session.skipPayload(this.#length - this.#done - length);
    }
    const begun = this.#type === NBD_CMD.read && this.#done > 0;
    if (begun && this.session.style === REPLY_STYLE.simple) {
      return this.session.giveUp(slot, "a read failed after its reply had begun");
    }
    this.#end(slot);
  }

  #end(slot: number) {
    this.requests.at[slot] = this.#at;
    this.active = false;
    this.session.replyPart(slot);
    this.session.largeEnded();
  }
}
