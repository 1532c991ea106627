/**
 * A volume: admission of requests, the way to the active backend, and what a mirror needs on that way.
 * Hot path: `submit` and the two completion handlers are callbacks on preallocated slots; they neither
 * await, throw nor allocate.
 *
 * Rules kept here (a mirror's correctness rests on them):
 * - A write marks its chunks before it is submitted: `dirty` while tracking, `unstable` in write-through.
 *   Where the mirror keeps a write-intent log it waits before the mark until its regions are durably hot.
 * - In write-through a write that overlaps a locked extent waits for the lock, and is acknowledged after
 *   both sides. A target that fails or is too slow is left behind at once: its chunks become dirty and the
 *   writes that waited only for it are acknowledged, because the source holds them.
 * - While a cutover is being committed there is no leaving behind: both sides hold every write.
 *
 * Trim reads as zeros afterwards on our backends; it goes to a target as write-zeroes, because a foreign
 * server may leave trimmed bytes as they are and the two sides must stay equal.
 */
import type { Clock, Turns } from "../core/mod.ts";
import { COUNTER } from "../codec/mod.ts";
import {
  type Backend,
  type BackendCalls,
  OPERATION,
  OPERATION_FLAG,
  type Operations,
} from "../backend/mod.ts";
import { Counters } from "./counters.ts";
import { FlushFaults } from "./flush_faults.ts";
import type { MirrorLink } from "./link.ts";
import type { Range } from "./range.ts";
import type { Requests } from "./requests.ts";
import { Sides } from "./sides.ts";

const EIO = 5, EINVAL = 22, ENOSPC = 28, EPERM = 1, EOPNOTSUPP = 95, ESHUTDOWN = 108;

export interface VolumeOptions {
  readonly name: string;
  readonly sizeBytes: number;
  readonly active: Backend;
  readonly operations: Operations;
  readonly requests: Requests;
  readonly turns: Turns;
  readonly clock: Clock;
}

export class Volume {
  readonly name: string;
  readonly readOnly = false;
  readonly counters: Counters = new Counters();
  #sizeBytes: number;
  readonly #sides: Sides;
  /** Where reads come from: the active backend, until a cutover begins. */
  #readFrom: Backend;
  #closed = false;
  #heldMicrosMax = 0;
  readonly #operations: Operations;
  readonly #requests: Requests;
  readonly #turns: Turns;
  readonly #clock: Clock;
  readonly #readOwner: number;
  /** Whom a slot's read was asked of. */
  readonly #askedOf: Backend[];
  #inFlight = 0;
  #refusesCold = false;
  readonly #flushFaults: FlushFaults;
  #drainWaiters: (() => void)[] = [];

  constructor(options: VolumeOptions) {
    this.name = options.name;
    this.#sizeBytes = options.sizeBytes;
    this.#readFrom = options.active;
    this.#operations = options.operations;
    this.#requests = options.requests;
    this.#turns = options.turns;
    this.#clock = options.clock;
    this.#readOwner = options.operations.registerOwner((slot, errno) =>
      this.#readDone(slot, errno)
    );
    this.#askedOf = new Array<Backend>(options.requests.count).fill(options.active);
    this.#sides = new Sides({
      ...options,
      onDone: (slot) => this.#sidesDone(slot),
      onEnded: () => this.#wakeWaiting(),
    });
    this.#flushFaults = new FlushFaults(options.requests, (slot) => this.#finish(slot));
    this.counters.set(COUNTER.sizeBytes, options.sizeBytes);
  }

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  get active(): Backend {
    return this.#sides.active;
  }

  get link(): MirrorLink | undefined {
    return this.#sides.link;
  }

  get inFlight(): number {
    return this.#inFlight;
  }

  /** Operations on the mirror's target that the application's writes started and that have not ended. */
  get inFlightAtTarget(): number {
    return this.#sides.underWayAtTarget;
  }

  /** Hot path. The slot's code, flags, at, length, session and cookie are filled in; its owner gets it back. */
  submit(slot: number): void {
    const requests = this.#requests;
    requests.startedMs[slot] = this.#clock.monotonicMs();
    this.#inFlight++;
    requests.waitingFor[slot] = 0;
    if (requests.code[slot] === OPERATION.flush) requests.at[slot] = requests.length[slot] = 0;
    const refusal = this.#admit(slot);
    if (refusal !== 0) {
      requests.errno[slot] = refusal;
      return this.#finish(slot);
    }
    const code = requests.code[slot] as number;
    if (code === OPERATION.read) this.#read(slot, this.#readFrom);
    else if (code === OPERATION.flush) this.#sides.submit(slot);
    else this.#write(slot);
  }

  /** Decides bounds, rights and lengths, once. @returns 0, or the errno to refuse with. */
  #admit(slot: number): number {
    const requests = this.#requests;
    if (this.#closed) return ESHUTDOWN;
    const code = requests.code[slot] as number;
    if (code === OPERATION.flush) return this.#flushFaults.take();
    const at = requests.at[slot] as number, length = requests.length[slot] as number;
    if (code !== OPERATION.read && this.readOnly) return EPERM;
    if (!(at >= 0) || !(length > 0)) return EINVAL;
    if (code <= OPERATION.write && length > requests.maxIo) return EINVAL;
    if (at + length > this.#sizeBytes) {
      return code === OPERATION.read || code === OPERATION.trim ? EINVAL : ENOSPC;
    }
    // Zeros that go to a mirror too are as fast as its far side: nobody knows how fast that is.
    const fast = ((requests.flags[slot] as number) & OPERATION_FLAG.fastZero) !== 0;
    return fast && this.link?.writeThrough === true ? EOPNOTSUPP : 0;
  }

  #read(slot: number, from: Backend) {
    const requests = this.#requests;
    requests.pin(slot);
    requests.waitingFor[slot] = 1;
    this.#askedOf[slot] = from;
    from.submit(
      this.#operations.take(
        this.#readOwner,
        slot,
        OPERATION.read,
        requests.at[slot] as number,
        requests.length[slot] as number,
        requests.dataAddress(slot),
        0,
      ),
    );
  }

  #write(slot: number) {
    const requests = this.#requests, link = this.#sides.link;
    const at = requests.at[slot] as number, length = requests.length[slot] as number;
    if (link !== undefined) {
      // Writes that overlap must reach both sides in one order, or the sides differ for good.
      if (
        link.isLocked(at, length) || (link.writeThrough && this.#sides.writes.touch(at, length))
      ) {
        link.waiting.push(slot);
        return;
      }
      if (link.log !== undefined && !link.log.admits(at, length)) {
        if (this.#refusesCold) return this.#refuse(slot);
        link.log.want(at, length);
        link.cold.push(slot);
        return;
      }
      if (link.writeThrough) {
        // It waited for a lock since it was admitted: now it is done at the mirror's speed, not half done.
        requests.flags[slot] = (requests.flags[slot] as number) & ~OPERATION_FLAG.fastZero;
        link.map.markUnstable(at, length);
        link.taint(at, length);
      } else link.changedBytes += link.map.markDirty(at, length) * link.map.chunkBytes;
      // Its log has everything hot until it leads.
      if (link.reverse) {
        link.reverse.map.markUnstable(at, length);
        link.reverse.taint(at, length);
      }
    }
    this.#sides.submit(slot);
  }

  #refuse(slot: number) {
    this.#requests.errno[slot] = EIO;
    this.#finish(slot);
  }

  #readDone(slot: number, errno: number) {
    const requests = this.#requests;
    requests.unpin(slot);
    // During a cutover both sides hold everything, so the other one can still answer; after it, the new one.
    if (errno !== 0 && this.#askedOf[slot] !== this.active && !this.#closed) {
      return this.#read(slot, this.active);
    }
    requests.errno[slot] = errno;
    this.#finish(slot);
  }

  /** Hot path. */
  #sidesDone(slot: number) {
    const isFlush = this.#requests.code[slot] === OPERATION.flush;
    if (!isFlush || !this.#flushFaults.holds(slot)) this.#finish(slot);
  }

  /** A write has ended: what waited for its range may go on. */
  #wakeWaiting() {
    this.#sides.writes.tellWaiters();
    const link = this.#sides.link;
    if (link !== undefined && link.waiting.length > 0) this.#resume(link);
  }

  #finish(slot: number) {
    const requests = this.#requests;
    const micros = (this.#clock.monotonicMs() - (requests.startedMs[slot] as number)) * 1000;
    this.counters.record(
      requests.code[slot] as number,
      requests.at[slot] as number,
      requests.length[slot] as number,
      micros,
      requests.errno[slot] as number,
    );
    this.#inFlight--;
    requests.complete(slot);
    this.#wakeWaiting();
    if (this.#inFlight === 0 && this.#drainWaiters.length > 0) this.#tellDrainWaiters();
  }

  // ---- For the mirror, off the hot path ----

  /**
   * Flushes the active side. Who keeps the bytes tells once that it lost some: what fails here fails the
   * application's next flush too, which would else be told that all it wrote is durable. @returns the errno.
   */
  async flushActive(calls: BackendCalls): Promise<number> {
    const round = this.#flushFaults.begun(), errno = await calls.flush(this.active);
    this.#flushFaults.ended(round, errno);
    this.#turns.wake();
    return errno;
  }

  /** Changes are tracked from here on, those of writes that are in flight among them. */
  attachLink(link: MirrorLink): void {
    if (link.log) link.log.onHot = () => this.#resumeCold(link);
    this.#sides.attach(link);
  }

  /** Ends mirroring: writes that wait for a lock go on; nothing goes to the target any more. */
  async detachLink(): Promise<void> {
    const link = this.link;
    if (!link) return;
    this.dropWriteThrough(undefined);
    while (this.inFlightAtTarget > 0) await this.#turns.sleep(1);
    this.#sides.link = undefined;
    this.#resume(link);
    this.#resumeCold(link);
  }

  /** New writes go to both sides from now on. @param follows see `MirrorLink.follows`. */
  enterWriteThrough({ follows = false } = {}): void {
    if (!this.link) return;
    this.link.follows = follows;
    this.link.writeThrough = true;
  }

  /** From now on writes are answered after both sides. Resolves when those answered before are on both. */
  async enterLockStep(): Promise<void> {
    if (this.link) this.link.follows = false;
    while (this.#sides.following > 0) await this.#turns.sleep(1);
  }

  /**
   * Leaves the target behind, at once: see `Sides.leaveTarget`.
   * @param reason undefined when asked for, else told to `onFallback`. @param cuts see there.
   */
  dropWriteThrough(reason: string | undefined, cuts = true): void {
    this.#sides.leaveTarget(reason, cuts);
  }

  /** Milliseconds that the oldest write has waited because of the mirror; 0 when none does. */
  mirrorWaitMs(): number {
    const requests = this.#requests, now = this.#clock.monotonicMs(), { link } = this;
    let longest = this.#sides.waitForTargetMs(now);
    for (const slot of link?.waiting ?? []) {
      if (link && this.#waitsForActive(slot, link)) continue;
      longest = Math.max(longest, now - (requests.startedMs[slot] as number));
    }
    return longest;
  }

  /** What a waiting write is behind has not ended at the active side: its mirror is not to blame. */
  #waitsForActive(slot: number, link: MirrorLink): boolean {
    const { at, length } = this.#requests;
    const range = { at: at[slot] as number, length: length[slot] as number };
    return [range, ...link.locksOn(range)].some((one) => this.#sides.waitsForActive(one));
  }

  /** True when a write in flight touches the range. */
  hasWriteIn(range: Range): boolean {
    return this.#sides.writes.touch(range.at, range.length);
  }

  /** New writes to the range wait until `unlock`. Resolves when those in flight there are complete. */
  async lock(range: Range): Promise<void> {
    this.link?.lock(range);
    await this.#sides.writes.leave(range);
  }

  unlock(range: Range): void {
    const link = this.link;
    if (!link) return;
    link.unlock(range);
    this.#resume(link);
  }

  /** Marks again what a flush of the target that begins now cannot cover. */
  markWritesUnstable(): void {
    this.#sides.markWritesUnstable();
  }

  /** Before a cutover whose former source is to be followed: see `Sides.prepareReverse`. */
  prepareReverse(reverse: MirrorLink): void {
    if (reverse.log) reverse.log.onHot = () => this.#resumeCold(reverse);
    this.#sides.prepareReverse(reverse);
  }

  /** The cutover did not happen: see `Sides.discardReverse`. */
  discardReverse(): void {
    this.#sides.discardReverse();
  }

  /** Cutover, step 3: reads come from the target; from here until the outcome both sides hold every write. */
  beginCommit(): void {
    const link = this.link;
    if (!link?.writeThrough) return;
    link.committing = true;
    this.#readFrom = link.target;
  }

  /** The commit did not happen: the source is what it was. */
  undoCommit(): void {
    if (this.link) this.link.committing = false;
    this.#readFrom = this.active;
  }

  /** The commit is durable: the target is the active backend, with its size. @returns the former one. */
  finishCommit(sizeBytes: number): Backend {
    const former = this.active;
    const ended = this.#sides.exchange();
    this.#flushFaults.forget();
    this.#readFrom = this.active;
    if (ended) {
      this.#resume(ended);
      this.#resumeCold(ended);
    }
    this.setSize(sizeBytes);
    return former;
  }

  /** Only larger: applications may have seen the old size. */
  setSize(sizeBytes: number): void {
    this.#sizeBytes = Math.max(this.#sizeBytes, sizeBytes);
    this.counters.set(COUNTER.sizeBytes, this.#sizeBytes);
  }

  /** Longest wait for a locked extent since the last call, microseconds. */
  takeHeldMax(): number {
    const held = this.#heldMicrosMax;
    this.#heldMicrosMax = 0;
    return held;
  }

  /**
   * Runs of bytes in [from, from + length) that may read as something else than zeros, ascending, not
   * overlapping: as the side knows them that reads come from. During a cutover the other side holds the same.
   * @throws what the backend does.
   */
  async dataExtents(from: number, length: number): Promise<readonly Range[]> {
    const asked = this.#readFrom;
    try {
      return await asked.dataExtents(from, length);
    } catch (error) {
      if (asked === this.active) throw error;
      return await this.active.dataExtents(from, length);
    }
  }

  /** Resolves when nothing is in flight at some moment. */
  drained(): Promise<void> {
    if (this.#inFlight === 0) return Promise.resolve();
    const { promise, resolve } = this.#turns.deferred<void>();
    this.#drainWaiters.push(() => resolve());
    return promise;
  }

  /** Refuses new requests and waits for those in flight. Idempotent. */
  async close(): Promise<void> {
    const first = !this.#closed;
    this.#closed = true;
    await this.drained();
    if (!first) return;
    this.#sides.close();
    this.#operations.unregisterOwner(this.#readOwner);
  }

  #resume(link: MirrorLink) {
    const now = this.#clock.monotonicMs();
    for (const slot of link.waiting.splice(0)) {
      const held = (now - (this.#requests.startedMs[slot] as number)) * 1000;
      this.#heldMicrosMax = Math.max(this.#heldMicrosMax, held);
      this.#write(slot);
    }
  }

  /**
   * Whether writes fail that would have to wait for the mirror's write-intent log, those that wait already among
   * them: its disk may be broken for good, and who asked is cut off or gone. They have changed nothing.
   */
  refuseCold(refuses: boolean): void {
    this.#refusesCold = refuses;
    if (refuses) { for (const slot of this.link?.cold.splice(0) ?? []) this.#refuse(slot); }
  }

  /** What is still cold is held again. */
  #resumeCold(link: MirrorLink) {
    for (const slot of link.cold.splice(0)) this.#write(slot);
  }

  /** Where a write is under way that must keep its region hot. */
  eachWrite(visit: (at: number, length: number) => void): void {
    this.#sides.eachWrite(visit);
  }

  #tellDrainWaiters() {
    for (const resolve of this.#drainWaiters.splice(0)) resolve();
  }
}
