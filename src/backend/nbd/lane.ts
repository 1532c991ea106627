/**
 * One of the connections of an NBD backend, for as long as the backend lives: it is made, lost, and made
 * anew with growing pauses. What it carries is the backend's; it only knows how much.
 *
 * Hot path where it passes requests and replies on: no await, throw or allocation.
 */
import { type Rng, toPsmaError } from "../../core/mod.ts";
import { type Alarm, closeFile, type Reactor } from "../../sys/mod.ts";
import { NbdConnection, type NbdConnectionEvents } from "./connection.ts";
import { type NbdConnected, NbdDialler, type NbdDiallerOptions } from "./dialler.ts";
import { type NbdOffer, NO_OFFER } from "./offer.ts";
import type { Piece } from "./piece.ts";
import type { NbdRequests } from "./requests.ts";
import type { NbdTarget } from "./uri.ts";

const BACKOFF_MS_MIN = 50, BACKOFF_MS_MAX = 2000, GOODBYE_MS = 1000;
/** Of a connection that others stand in for. */
const SPARE_BACKOFF_MS_MAX = 30_000;

/**
 * `up`: connected. `ending`: the connection is over, the kernel not yet done with it. `down`: not connected.
 * `closed`: for good.
 */
export type LaneState = "up" | "ending" | "down" | "closed";

/** What a connection tells its backend. */
export interface NbdLaneOwner {
  /** Whether to connect now at all. */
  mayDial(lane: NbdLane): boolean;
  /** True when others carry on meanwhile. */
  readonly connected: boolean;
  /** True when the connection is made anew on purpose, which needs no pause. */
  readonly renewing: boolean;
  /** Looks at what the server offers. @throws {PsmaError} when the connection is of no use. */
  admit(offer: NbdOffer): void;
  onUp(lane: NbdLane): void;
  onReply(lane: NbdLane, cookie: number, error: number): void;
  onExtent(length: number, flags: number): void;
  onRoom(): void;
  /** It is lost; what it carried is still in the kernel's hands. */
  onDown(lane: NbdLane, reason: string): void;
  /** The kernel is done with it. */
  onEnded(lane: NbdLane): void;
  /** The server will never let us in again. */
  onFenced(reason: string): void;
}

export interface NbdLaneOptions extends NbdDiallerOptions {
  readonly index: number;
  readonly reactor: Reactor;
  readonly requests: NbdRequests;
  readonly target: NbdTarget;
  readonly rng: Rng;
}

export class NbdLane implements NbdConnectionEvents {
  readonly index: number;
  offer: NbdOffer = NO_OFFER;
  /** Requests that wait for an answer on it. */
  awaited = 0;
  state: LaneState = "down";
  readonly #reactor: Reactor;
  readonly #rng: Rng;
  readonly #owner: NbdLaneOwner;
  readonly #dialler: NbdDialler;
  readonly #connection: NbdConnection;
  #pauseMs = 0;
  #pause: Alarm | undefined;
  #dialling: Promise<void> | undefined;
  #closing = false;
  #onClosable: (() => void) | undefined;

  /** @throws {PsmaError} usage/host, usage/socket-path */
  constructor(readonly options: NbdLaneOptions, owner: NbdLaneOwner) {
    const { index, reactor, requests, target } = options;
    this.index = index;
    this.#reactor = reactor;
    this.#rng = options.rng;
    this.#owner = owner;
    this.#dialler = new NbdDialler(reactor, target, options);
    this.#connection = new NbdConnection(reactor.ring, requests, index, this);
  }

  /** Hot path. True while requests can be sent by it. */
  get hasRoom(): boolean {
    return this.#connection.hasRoom;
  }

  /** Hot path. Queues a request; `flush` sends it. */
  queue(cookie: number, generation: number, piece: Piece): void {
    this.awaited++;
    this.#connection.queue(cookie, generation, piece);
  }

  /** Hot path. */
  flush(): void {
    this.#connection.flush();
  }

  onReply(cookie: number, error: number): void {
    this.awaited--;
    this.#pauseMs = BACKOFF_MS_MIN;
    this.#owner.onReply(this, cookie, error);
  }

  onExtent(length: number, flags: number): void {
    this.#owner.onExtent(length, flags);
  }

  onRoom(): void {
    this.#owner.onRoom();
    this.#connection.flush();
  }

  #begin({ fd, offer }: NbdConnected): void {
    this.offer = offer;
    this.state = "up";
    this.#connection.start(fd, offer);
    this.#owner.onUp(this);
  }

  /** Ends the connection from this side as if it had been lost. */
  drop(reason: string): void {
    if (this.state !== "up") return;
    this.#connection.end();
    this.connectionLost(reason);
  }

  /** Ends the connection, which carries nothing, to make it anew. @returns false when there is none. */
  renew(): boolean {
    if (this.state !== "up") return false;
    this.state = "ending";
    this.#connection.end();
    return true;
  }

  connectionLost(reason: string): void {
    this.state = "ending";
    if (!this.#closing) this.#owner.onDown(this, reason);
  }

  connectionEnded(): void {
    this.awaited = 0;
    this.state = "down";
    if (this.#pauseMs === 0) this.#pauseMs = BACKOFF_MS_MIN;
    this.#owner.onEnded(this);
    this.#onClosable?.();
  }

  /** Connects, where it is not and may; tries until it has. */
  dial(): void {
    if (this.state !== "down" || this.#dialling || this.#closing) return;
    if (!this.#owner.mayDial(this)) return;
    this.#dialling = this.#dialOn().finally(() => {
      this.#dialling = undefined;
      this.#reactor.wake();
      // It may have been lost again in between.
      this.dial();
    });
  }

  /** Never rejects. */
  async #dialOn(): Promise<void> {
    while (this.#wantsToDial()) {
      if (!this.#owner.renewing) await this.#rest();
      if (!this.#wantsToDial()) return;
      const asked = this.options.target.exportName;
      try {
        await this.connect();
      } catch (error) {
        const failure = toPsmaError(error, "store/unreachable");
        if (failure.code === "fenced/epoch") {
          // What was refused may be the epoch of before: it has been raised while the answer was on its way.
          if (this.options.target.exportName !== asked) continue;
          return this.#owner.onFenced(failure.message);
        }
        // Tried again, quietly: that it was lost has been said.
        this.#pauseMs = Math.max(this.#pauseMs, BACKOFF_MS_MIN);
        if (this.#owner.renewing) await this.#rest();
      }
    }
  }

  #wantsToDial(): boolean {
    return this.state === "down" && !this.#closing && this.#owner.mayDial(this);
  }

  /** One attempt. @throws {PsmaError} store/unreachable, store/nbd-protocol, not-found/export, fenced/epoch, … */
  async connect(): Promise<void> {
    const connected = await this.#dialler.enter();
    try {
      this.#owner.admit(connected.offer);
    } catch (error) {
      closeFile(connected.fd);
      throw error;
    }
    this.#begin(connected);
  }

  /** Waits a while, longer each time, and not as long as others who lost the same server. */
  async #rest(): Promise<void> {
    if (this.#pauseMs === 0) return;
    const max = this.#owner.connected ? SPARE_BACKOFF_MS_MAX : BACKOFF_MS_MAX;
    const pause = this.#reactor.alarm(
      Math.min(this.#pauseMs, max) * (0.5 + this.#rng.float() / 2),
    );
    this.#pauseMs = Math.min(this.#pauseMs * 2, SPARE_BACKOFF_MS_MAX);
    this.#pause = pause;
    await pause.over;
    this.#pause = undefined;
  }

  /** The one that everybody waits for: it tries now. */
  hurry(): void {
    this.#pauseMs = BACKOFF_MS_MIN;
    this.#pause?.cancel();
  }

  /** Says goodbye, or gives up connecting, and gives everything back. */
  async close(): Promise<void> {
    this.#closing = true;
    this.#pause?.cancel();
    this.#dialler.giveUp();
    if (this.state === "up") this.#connection.sayGoodbye();
    const patience = this.#reactor.alarm(GOODBYE_MS);
    patience.over.then(() => this.#connection.end());
    await this.#dialling;
    while (this.state !== "down") {
      const { promise, resolve } = this.#reactor.deferred<void>();
      this.#onClosable = () => resolve();
      await promise;
    }
    this.state = "closed";
    patience.cancel();
    this.#connection.release();
  }
}
