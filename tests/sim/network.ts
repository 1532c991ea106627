/**
 * A virtual network between an agent's machine and a store: byte streams in order, with delays. It can be cut
 * (connections are reset, new ones refused) or stalled (everything waits until it is healed). A machine that
 * loses power says nothing to its peers.
 */
import type { World } from "./world.ts";

const ECONNRESET = 104, ECONNREFUSED = 111, ECANCELED = 125, EPIPE = 32, ENOTCONN = 107;

/** The store's end of a connection. */
export interface ServerEnd {
  receive(bytes: Uint8Array): void;
  /** The client has left, or the connection was reset. */
  closed(): void;
}

/** Who takes connections; undefined while nobody listens. */
export type Accept = (link: Link) => ServerEnd;

interface Receiver {
  readonly into: Uint8Array;
  readonly all: boolean;
  readonly done: (result: number) => void;
  filled: number;
}

export class Network {
  accept: Accept | undefined;
  /** While the other machine is off, nobody refuses connections either. */
  serverIsOn = true;
  #stalled = false;
  #isCut = false;
  #held: (() => void)[] = [];
  readonly #links = new Set<Link>();

  constructor(readonly world: World) {}

  get isCut(): boolean {
    return this.#isCut;
  }

  cut(): void {
    this.#isCut = true;
    for (const link of [...this.#links]) link.reset();
  }

  stall(): void {
    this.#stalled = true;
  }

  heal(): void {
    this.#isCut = this.#stalled = false;
    for (const run of this.#held.splice(0)) run();
  }

  /** Runs later, after what a message takes; while stalled, when it is healed. */
  later(run: () => void, atLeastMs = 0): number {
    const delayMs = Math.max(this.latency(), atLeastMs);
    this.world.after(delayMs, () => this.deliver(run));
    return delayMs;
  }

  deliver(run: () => void): void {
    if (this.#stalled) this.#held.push(run);
    else run();
  }

  latency(): number {
    const { world } = this;
    return world.chance(0.03) ? world.between(1, 30) : world.between(0.03, 0.5);
  }

  connect(socket: VirtualSocket, done: (result: number) => void): void {
    this.later(() => {
      if (!this.serverIsOn) return;
      const accept = this.#isCut ? undefined : this.accept;
      if (!accept) return done(-ECONNREFUSED);
      const link = new Link(this, socket);
      this.#links.add(link);
      socket.connected(link);
      link.server = accept(link);
      done(0);
    });
  }

  /** The store's machine or process is gone. @param silently nobody is told: its power is off. */
  serverGone(silently: boolean): void {
    for (const link of [...this.#links]) {
      link.server = undefined;
      if (!silently) link.reset();
    }
  }

  /** The agent's machine has lost its power: the store is not told. */
  clientVanished(): void {
    for (const link of [...this.#links]) link.client = undefined;
  }

  forget(link: Link): void {
    this.#links.delete(link);
  }
}

export class Link {
  server: ServerEnd | undefined;
  #toServerMs = 0;
  #toClientMs = 0;
  #broken = false;

  constructor(readonly network: Network, public client: VirtualSocket | undefined) {}

  toServer(bytes: Uint8Array): void {
    this.#toServerMs = this.#inOrder(this.#toServerMs, () => {
      if (this.#broken) return;
      if (this.server) this.server.receive(bytes);
      else if (this.network.serverIsOn) this.reset();
    });
  }

  toClient(bytes: Uint8Array): void {
    this.#toClientMs = this.#inOrder(this.#toClientMs, () => {
      if (!this.#broken) this.client?.arrived(bytes);
    });
  }

  /** The client closes: what it sent before still arrives. */
  finish(): void {
    // A machine without power sends no farewell.
    if (!this.client) return;
    this.client = undefined;
    this.#toServerMs = this.#inOrder(this.#toServerMs, () => {
      const { server } = this;
      this.#end();
      server?.closed();
    });
  }

  /** The store closes: what it sent before still arrives. */
  finishByServer(): void {
    this.server = undefined;
    this.#toClientMs = this.#inOrder(this.#toClientMs, () => this.client?.ended(0));
  }

  /** Both ends hear that the connection is gone; what was on its way is lost. */
  reset(): void {
    const { client, server } = this;
    this.#end();
    this.network.later(() => client?.ended(-ECONNRESET));
    this.network.later(() => server?.closed());
  }

  #end() {
    this.#broken = true;
    this.network.forget(this);
  }

  #inOrder(lastMs: number, run: () => void): number {
    const { world } = this.network;
    const dueMs = Math.max(world.nowMs + this.network.latency(), lastMs);
    world.after(dueMs - world.nowMs, () => this.network.deliver(run));
    return dueMs;
  }
}

export class VirtualSocket {
  #link: Link | undefined;
  #inbox: Uint8Array[] = [];
  /** How it ended: 0 by its peer, or a negative errno; undefined while it has not. */
  #end: number | undefined;
  #receiver: Receiver | undefined;
  #connecting: ((result: number) => void) | undefined;

  constructor(readonly network: Network) {}

  connect(done: (result: number) => void): void {
    this.#connecting = done;
    this.network.connect(this, (result) => {
      if (this.#connecting !== done) return this.#link?.finish();
      this.#connecting = undefined;
      done(result);
    });
  }

  connected(link: Link): void {
    this.#link = link;
  }

  /** @returns bytes taken, or a negative errno. */
  send(bytes: Uint8Array): number {
    if (this.#end !== undefined) return this.#end === 0 ? -EPIPE : this.#end;
    if (!this.#link) return -ENOTCONN;
    const { world } = this.network;
    const taken = bytes.length > 1 && world.chance(0.02)
      ? 1 + world.rng.below(bytes.length - 1)
      : bytes.length;
    this.#link.toServer(bytes.slice(0, taken));
    return taken;
  }

  receive(into: Uint8Array, all: boolean, done: (result: number) => void): void {
    this.#receiver = { into, all, done, filled: 0 };
    this.#serve();
  }

  arrived(bytes: Uint8Array): void {
    this.#inbox.push(bytes);
    this.#serve();
  }

  ended(how: number): void {
    this.#end ??= how;
    this.#serve();
  }

  #serve() {
    const receiver = this.#receiver;
    if (!receiver) return;
    while (this.#inbox.length > 0 && receiver.filled < receiver.into.length) {
      const first = this.#inbox[0] as Uint8Array;
      const part = first.subarray(0, receiver.into.length - receiver.filled);
      receiver.into.set(part, receiver.filled);
      receiver.filled += part.length;
      if (part.length === first.length) this.#inbox.shift();
      else this.#inbox[0] = first.subarray(part.length);
    }
    const enough = receiver.all ? receiver.into.length : 1;
    if (receiver.filled >= enough) this.#answer(receiver.filled);
    else if (this.#end !== undefined) {
      this.#answer(receiver.filled > 0 ? receiver.filled : this.#end);
    }
  }

  #answer(result: number) {
    const receiver = this.#receiver;
    this.#receiver = undefined;
    receiver?.done(result);
  }

  /** Ends both directions; what waits completes. */
  shutdown(): void {
    this.ended(0);
    this.#leave();
  }

  /** What waits completes as cancelled. */
  cancel(): void {
    this.#answer(-ECANCELED);
    const connecting = this.#connecting;
    this.#connecting = undefined;
    connecting?.(-ECANCELED);
  }

  close(): void {
    this.#receiver = undefined;
    this.#connecting = undefined;
    this.#leave();
  }

  #leave() {
    this.#link?.finish();
    this.#link = undefined;
  }
}
