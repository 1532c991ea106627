/**
 * The two places that a volume's writes may go to: the active backend, and while there is a mirror, its
 * target. Knows which writes are under way at which of them, and changes their parts: leaves the target
 * behind, or exchanges the two. Hot path: `submit` and the completion handlers neither await, throw nor allocate.
 *
 * An operation belongs to the side that it was sent to, not to the part which that side plays: after an
 * exchange its end is judged by the part of now. So a write that is under way while the sides are exchanged
 * waits for the same places as before, and nothing is counted twice or forgotten.
 *
 * While the target follows, a write is answered when the active side has it; its slot and its range stay taken
 * until it has landed at the target too, so that later writes and copies cannot overtake it. So few may do so
 * that a slow target cannot use up the slots.
 */
import type { Turns } from "../core/mod.ts";
import { type Backend, OPERATION, type Operations } from "../backend/mod.ts";
import type { MirrorLink } from "./link.ts";
import type { Range } from "./range.ts";
import type { Requests } from "./requests.ts";
import { WritesInFlight } from "./writes_in_flight.ts";

/** One in so many slots may belong to writes that were answered early. */
const FOLLOWING_SHARE = 4;

export interface SidesOptions {
  readonly active: Backend;
  readonly operations: Operations;
  readonly requests: Requests;
  readonly turns: Turns;
  /** Every side that the request waited for has answered, or was left. */
  readonly onDone: (slot: number) => void;
  /** A write has ended: whoever waits for its range may try again. */
  readonly onEnded: () => void;
}

export class Sides {
  active: Backend;
  link: MirrorLink | undefined;
  readonly writes: WritesInFlight;
  readonly #options: SidesOptions;
  readonly #requests: Requests;
  readonly #operations: Operations;
  /** Of operations at side 0 and side 1. */
  readonly #owners: readonly [number, number];
  #activeSide: 0 | 1 = 0;
  /** Operations under way at each side. */
  readonly #underWay = new Int32Array(2);
  /** Sides at which a write was left behind and may still land; it counts as in flight until then. */
  readonly #abandoned: Uint8Array;
  /** 1: answered early, and on its way to the target that follows. */
  readonly #followed: Uint8Array;
  #following = 0;
  readonly #followingMost: number;

  constructor(options: SidesOptions) {
    this.#options = options;
    const { requests, operations, turns } = options;
    this.active = options.active;
    this.#requests = requests;
    this.#operations = operations;
    this.#abandoned = new Uint8Array(requests.count);
    this.#followed = new Uint8Array(requests.count);
    this.#followingMost = Math.floor(requests.count / FOLLOWING_SHARE);
    this.writes = new WritesInFlight(requests, turns);
    const register = (side: 0 | 1) =>
      operations.registerOwner((slot, errno) => this.#ended(side, slot, errno));
    this.#owners = [register(0), register(1)];
  }

  /** Operations on the target that the application's writes started and that have not ended. */
  get underWayAtTarget(): number {
    return this.#underWay[1 - this.#activeSide] as number;
  }

  /** Writes that were answered and have not landed at the target that follows. */
  get following(): number {
    return this.#following;
  }

  /** Hot path. A write or flush: to the active backend, and in write-through to the target too. */
  submit(slot: number): void {
    const requests = this.#requests, link = this.link, side = this.#activeSide;
    const both = link !== undefined && link.writeThrough;
    this.writes.add(slot);
    requests.waitingFor[slot] = both ? 3 : 1 << side;
    requests.pin(slot);
    this.#underWay[side] = (this.#underWay[side] as number) + 1;
    if (both) {
      requests.pin(slot);
      this.#underWay[1 - side] = (this.#underWay[1 - side] as number) + 1;
    }
    const code = requests.code[slot] as number;
    this.active.submit(this.#operationFor(slot, this.#owners[side], code));
    if (both) {
      const targetCode = code === OPERATION.trim ? OPERATION.writeZeroes : code;
      const owner = this.#owners[(1 - side) as 0 | 1];
      link.target.submit(this.#operationFor(slot, owner, targetCode));
    }
  }

  #operationFor(slot: number, owner: number, code: number): number {
    const requests = this.#requests;
    return this.#operations.take(
      owner,
      slot,
      code,
      requests.at[slot] as number,
      requests.length[slot] as number,
      requests.dataAddress(slot),
      requests.flags[slot] as number,
    );
  }

  #ended(side: 0 | 1, slot: number, errno: number) {
    const requests = this.#requests, bit = 1 << side;
    this.#underWay[side] = (this.#underWay[side] as number) - 1;
    // A slot that was answered without this side waits for it no more, and its answer says nothing.
    if (((requests.waitingFor[slot] as number) & bit) !== 0) {
      if (errno !== 0) this.#failed(side, slot, errno);
      if (((requests.waitingFor[slot] as number) & bit) !== 0) {
        const answersNow = side === this.#activeSide && this.link?.follows === true;
        if (answersNow && requests.errno[slot] === 0) this.#follow(slot);
        this.#sideDone(slot, bit);
      }
    } else if (errno !== 0 && this.#followed[slot] !== 0) this.#failed(side, slot, errno);
    if (((this.#abandoned[slot] as number) & bit) !== 0) this.#landed(slot, bit);
    requests.unpin(slot);
  }

  #failed(side: 0 | 1, slot: number, errno: number) {
    const requests = this.#requests, link = this.link;
    const isActive = side === this.#activeSide;
    if (isActive || link === undefined || link.committing) requests.errno[slot] = errno;
    if (link === undefined || !link.writeThrough) return;
    // The sides may differ there now, whoever becomes active.
    const at = requests.at[slot] as number, length = requests.length[slot] as number;
    link.map.markDirty(at, length);
    link.reverse?.map.markDirty(at, length);
    // A flush: whatever that side was to make durable, it may have given up.
    if (length === 0) (isActive ? link.reverse : link)?.targetLost();
    if (!isActive) this.leaveTarget("the target failed a write");
    else if (length > 0) this.leaveTarget("the volume's own backend failed a write");
  }

  /** Hot path. The active side has it: where the target has not, and may follow, nobody waits for it. */
  #follow(slot: number) {
    const waitingFor = this.#requests.waitingFor[slot] as number;
    const target = waitingFor & (1 << (1 - this.#activeSide));
    if (target === 0 || this.#following >= this.#followingMost) return;
    // Volumes share the table: however many follow, they leave a part of it to those who do not.
    if (this.#requests.freeCount < this.#followingMost) return;
    this.#requests.waitingFor[slot] = waitingFor & ~target;
    this.#abandoned[slot] = (this.#abandoned[slot] as number) | target;
    this.#followed[slot] = 1;
    this.#following++;
  }

  /** What was left behind, or followed, has ended at that side. */
  #landed(slot: number, bit: number) {
    if (this.#followed[slot] !== 0) {
      this.#followed[slot] = 0;
      this.#following--;
    }
    this.#abandoned[slot] = (this.#abandoned[slot] as number) & ~bit;
    if (this.#abandoned[slot] !== 0 || this.#requests.waitingFor[slot] !== 0) return;
    this.writes.remove(slot);
    this.#options.onEnded();
  }

  #sideDone(slot: number, bit: number) {
    const waitingFor = (this.#requests.waitingFor[slot] as number) & ~bit;
    this.#requests.waitingFor[slot] = waitingFor;
    if (waitingFor !== 0) return;
    if (this.#abandoned[slot] === 0) this.writes.remove(slot);
    this.#options.onDone(slot);
  }

  // ---- Changes of the parts, off the hot path ----

  /** Changes are tracked from here on, those of writes that are in flight among them. */
  attach(link: MirrorLink): void {
    this.link = link;
    this.eachWrite((at, length) => void link.map.markDirty(at, length));
  }

  /**
   * Leaves the target behind, at once: what was on its way there becomes dirty, and writes that waited only
   * for it are answered. Does nothing while a commit is under way.
   * @param reason undefined when asked for, else told to `onFallback`.
   * @param cuts false: what is on its way there may land, for nothing is copied over it any more.
   */
  leaveTarget(reason: string | undefined, cuts = true): void {
    const link = this.link;
    if (!link || !link.writeThrough || link.committing) return;
    link.writeThrough = link.follows = false;
    // They are dirty like the rest; how they end says nothing any more.
    this.#followed.fill(0);
    this.#following = 0;
    this.eachWrite((at, length) => void link.map.markDirty(at, length));
    this.#leave((1 - this.#activeSide) as 0 | 1);
    // What is still on its way there would keep its range from being copied: it ends now.
    if (cuts && (this.underWayAtTarget > 0 || link.hasLocks)) link.target.abort();
    // Not every target can be cut off: what is being copied or compared there is not waited for either.
    link.unlockAll();
    this.#options.onEnded();
    if (reason !== undefined) link.onFallback?.(reason);
    this.#options.turns.wake();
  }

  /**
   * The map of a mirror that will lead back: what is written from here on is marked there too, as what the
   * present active side may not hold durably.
   */
  prepareReverse(reverse: MirrorLink): void {
    const link = this.link;
    if (!link) return;
    link.reverse = reverse;
    // What was not compared the one way was not compared the other way either.
    const { unverified } = link;
    for (let chunk = unverified.next(0); chunk >= 0; chunk = unverified.next(chunk + 1)) {
      reverse.unverified.mark(chunk);
    }
    this.eachWrite((at, length) => {
      reverse.map.markUnstable(at, length);
      reverse.taint(at, length);
    });
  }

  /** What was prepared is not needed: nothing is marked there any more, so it may be closed. */
  discardReverse(): void {
    if (this.link) this.link.reverse = undefined;
  }

  /**
   * The target becomes the active side. With a reverse link the former active side is its target from this
   * very moment: in write-through writes under way go on waiting for both; while tracking they are dirty.
   * @returns the link that ended, whose waiting writes the caller lets go on.
   */
  exchange(): MirrorLink | undefined {
    const link = this.link;
    if (!link) return undefined;
    const former = this.#activeSide, reverse = link.reverse;
    this.active = link.target;
    this.#activeSide = (1 - former) as 0 | 1;
    this.link = reverse;
    link.reverse = undefined;
    if (reverse?.writeThrough) return link;
    if (reverse) this.eachWrite((at, length) => void reverse.map.markDirty(at, length));
    this.#leave(former);
    return link;
  }

  /** Nobody waits for that side any more; what is under way there counts until it has landed. */
  #leave(side: 0 | 1) {
    const requests = this.#requests, bit = 1 << side, pending: number[] = [];
    for (let i = 0; i < this.writes.count; i++) {
      const slot = this.writes.slotAt(i);
      if (((requests.waitingFor[slot] as number) & bit) !== 0) pending.push(slot);
    }
    for (const slot of pending) {
      if (this.link) this.#abandoned[slot] = (this.#abandoned[slot] as number) | bit;
      this.#sideDone(slot, bit);
    }
  }

  /** Milliseconds that the oldest write under way has waited for the target, or followed; 0 when none does. */
  waitForTargetMs(now: number): number {
    const requests = this.#requests, target = 1 << (1 - this.#activeSide);
    let longest = 0;
    for (let i = 0; i < this.writes.count; i++) {
      const slot = this.writes.slotAt(i);
      if (requests.waitingFor[slot] !== target && this.#followed[slot] === 0) continue;
      longest = Math.max(longest, now - (requests.startedMs[slot] as number));
    }
    return longest;
  }

  /** True when a write under way there has not ended at the active side. */
  waitsForActive({ at, length }: Range): boolean {
    const requests = this.#requests, bit = 1 << this.#activeSide;
    for (let i = 0; i < this.writes.count; i++) {
      const slot = this.writes.slotAt(i), from = requests.at[slot] as number;
      const isThere = from < at + length && at < from + (requests.length[slot] as number);
      if (isThere && ((requests.waitingFor[slot] as number) & bit) !== 0) return true;
    }
    return false;
  }

  /** Marks again what a flush of the target that begins now cannot cover. */
  markWritesUnstable(): void {
    const link = this.link;
    if (link?.writeThrough) this.eachWrite((at, length) => link.map.markUnstable(at, length));
  }

  /** Writes and flushes under way, those that were left behind and may still land among them. */
  eachWrite(mark: (at: number, length: number) => void): void {
    const { at, length } = this.#requests;
    for (let i = 0; i < this.writes.count; i++) {
      const slot = this.writes.slotAt(i);
      mark(at[slot] as number, length[slot] as number);
    }
  }

  close(): void {
    for (const owner of this.#owners) this.#operations.unregisterOwner(owner);
  }
}
