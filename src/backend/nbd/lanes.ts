/**
 * The connections of an NBD backend. The first one leads: the others follow when it is connected and the
 * server says that connections share one cache (CAN_MULTI_CONN), and are given up where it says so no more.
 * A fenced PSMA export never says so: there a second connection would cut off the first.
 */
import { PsmaError, type Rng } from "../../core/mod.ts";
import { NBD_FLAG } from "../../codec/mod.ts";
import { NbdLane, type NbdLaneOptions, type NbdLaneOwner } from "./lane.ts";
import { can, type NbdOffer } from "./offer.ts";
import type { NbdBackendEvent } from "./options.ts";

const NBD_CONNECTIONS_MAX = 16;

/** What the connections tell their backend. */
export interface NbdLanesOwner {
  onReply(lane: NbdLane, cookie: number, error: number): void;
  onExtent(length: number, flags: number): void;
  onRoom(): void;
  /** A connection is there, the first one or one more. */
  onUp(): void;
  /** A connection was lost: what was written and not flushed may be gone. */
  onDown(): void;
  /** The kernel is done with a connection, and with the memory of what it carried. */
  onEnded(lane: NbdLane): void;
  /** The server will not let us in again, unless with a higher epoch. */
  onFenced(): void;
}

export interface NbdLanesOptions extends Omit<NbdLaneOptions, "index"> {
  readonly description: string;
  /** How many there may be. */
  readonly connections: number;
  readonly rng: Rng;
  readonly onEvent: (event: NbdBackendEvent) => void;
}

export class NbdLanes implements NbdLaneOwner {
  /** Of the export; a server that has less is not connected to. */
  sizeBytes = 0;
  /** True while connections are made anew on purpose. */
  renewing = false;
  readonly #options: NbdLanesOptions;
  readonly #owner: NbdLanesOwner;
  readonly #all: NbdLane[] = [];
  #up = 0;
  #opened = false;
  #stopped = false;

  /** @throws {PsmaError} usage/host, usage/socket-path */
  constructor(options: NbdLanesOptions, owner: NbdLanesOwner) {
    this.#options = options;
    this.#owner = owner;
    this.#all.push(new NbdLane({ ...options, index: 0 }, this));
  }

  get leader(): NbdLane {
    return this.#all[0] as NbdLane;
  }

  /** How many are up. */
  get up(): number {
    return this.#up;
  }

  get connected(): boolean {
    return this.#up > 0;
  }

  get(index: number): NbdLane | undefined {
    return this.#all[index];
  }

  /**
   * Connects for the first time. @param expectedSizeBytes with it, a server that is not there is waited for.
   * @throws {PsmaError} store/unreachable, store/nbd-protocol, store/nbd-refused, not-found/export, fenced/epoch
   */
  async open(expectedSizeBytes: number | undefined): Promise<void> {
    try {
      await this.leader.connect();
    } catch (error) {
      if (expectedSizeBytes === undefined) throw error;
      this.sizeBytes = expectedSizeBytes;
      this.leader.dial();
    } finally {
      this.#opened = true;
    }
  }

  /** Hot path. The connection on which least is waiting; undefined when none takes anything now. */
  roomiest(): NbdLane | undefined {
    const all = this.#all;
    let best: NbdLane | undefined;
    for (let i = 0; i < all.length; i++) {
      const lane = all[i] as NbdLane;
      if (lane.hasRoom && (best === undefined || lane.awaited < best.awaited)) best = lane;
    }
    return best;
  }

  /** Hot path. */
  flush(): void {
    const all = this.#all;
    for (let i = 0; i < all.length; i++) (all[i] as NbdLane).flush();
  }

  mayDial(lane: NbdLane): boolean {
    return !this.#stopped && (lane === this.leader || this.#isShared());
  }

  /** True when the server that we are connected to allows further connections. */
  #isShared(): boolean {
    return this.#all.some((one) => one.state === "up" && can(one.offer, NBD_FLAG.canMultiConn));
  }

  admit(offer: NbdOffer): void {
    const { description } = this.#options;
    if (offer.sizeBytes < this.sizeBytes) {
      this.#say("nbd.shrunk", "error", `${description} has only ${offer.sizeBytes} bytes now`);
      throw new PsmaError("store/shrunk", `Cannot use ${description}: it has shrunk`);
    }
    if (this.#up > 0 && !(can(offer, NBD_FLAG.canMultiConn) && this.#isShared())) {
      throw new PsmaError("store/nbd-refused", `Cannot share ${description}: it forbids that`);
    }
  }

  onUp(lane: NbdLane): void {
    if (!this.#opened) this.sizeBytes = lane.offer.sizeBytes;
    else if (this.#up === 0 && !this.renewing) {
      this.#say("nbd.connected", "info", `${this.#options.description} is back`);
    }
    this.#up++;
    this.#dial();
    this.#owner.onUp();
  }

  /** Connects where it is wanted and allowed. */
  #dial() {
    const wanted = Math.min(this.#options.connections, NBD_CONNECTIONS_MAX);
    while (!this.#stopped && this.#all.length < wanted && this.#isShared()) {
      this.#all.push(new NbdLane({ ...this.#options, index: this.#all.length }, this));
    }
    for (const lane of this.#all) lane.dial();
  }

  onDown(lane: NbdLane, reason: string): void {
    const { description } = this.#options;
    this.#up--;
    if (this.#up === 0) {
      this.#say("nbd.lost", "warning", `lost ${description}: ${reason}`);
      // Everybody waits for it now; but when it was the last one, its own pauses go on growing.
      if (lane !== this.leader) this.leader.hurry();
    } else {
      const left = `${this.#up} of ${this.#all.length} are left`;
      this.#say("nbd.fewer", "info", `lost a connection of ${description}, ${left}: ${reason}`);
    }
    this.#owner.onDown();
  }

  onEnded(lane: NbdLane): void {
    this.#owner.onEnded(lane);
    this.#dial();
  }

  onFenced(reason: string): void {
    if (this.#stopped) return;
    this.#stopped = true;
    this.#say("nbd.fenced", "error", reason);
    this.drop("the server has fenced us out");
    this.#owner.onFenced();
  }

  /** After `onFenced`: the server is to let us in now. */
  begin(): void {
    this.#stopped = false;
    this.#dial();
  }

  onReply(lane: NbdLane, cookie: number, error: number): void {
    this.#owner.onReply(lane, cookie, error);
  }

  onExtent(length: number, flags: number): void {
    this.#owner.onExtent(length, flags);
  }

  onRoom(): void {
    this.#owner.onRoom();
  }

  /** Ends all connections from this side as if they had been lost. */
  drop(reason: string): void {
    for (const lane of this.#all) lane.drop(reason);
  }

  /** Ends all connections, which carry nothing, to make them anew. */
  renew(): void {
    for (const lane of this.#all) if (lane.renew()) this.#up--;
  }

  /** Says goodbye and gives everything back. */
  async close(): Promise<void> {
    this.#stopped = true;
    await Promise.all(this.#all.map((lane) => lane.close()));
    this.#up = 0;
  }

  #say(type: string, severity: NbdBackendEvent["severity"], message: string) {
    this.#options.onEvent({ type, severity, message });
  }
}
