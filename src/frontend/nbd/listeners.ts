/**
 * The sockets that an NBD server listens on. One ACCEPT is on its way for each, until it fails: then the
 * listener rests until `resume`, because an error such as "out of descriptors" would come back at once.
 */
import {
  closeFile,
  listenSocket,
  type Ring,
  shutdownSocket,
  type SocketAddress,
} from "../../sys/mod.ts";

interface Listener {
  fd: number;
  readonly address: SocketAddress;
  accepting: boolean;
}

export interface ListenerEvents {
  /** A connection; the descriptor is the receiver's. */
  accepted(fd: number, isUnix: boolean): void;
  /** A listener rests. @param errno positive. */
  acceptFailed(errno: number): void;
  /** A listener has closed. */
  listenerClosed(): void;
}

export class NbdListeners {
  readonly #listeners: Listener[] = [];
  readonly #acceptKind: number;
  readonly #cancelKind: number;
  #closing = false;

  constructor(readonly ring: Ring, readonly events: ListenerEvents) {
    this.#acceptKind = ring.register((index, result) => this.#onAccepted(index, result));
    this.#cancelKind = ring.register(() => {});
  }

  /** Where it was listened on first. */
  get firstAddress(): SocketAddress | undefined {
    return this.#listeners[0]?.address;
  }

  get closed(): boolean {
    return this.#listeners.every((listener) => listener.fd < 0);
  }

  /** @returns the address with its real port. @throws {PsmaError} state/address-in-use, sys/... */
  listen(address: SocketAddress): SocketAddress {
    const listening = listenSocket(address);
    const index = this.#listeners.push({ ...listening, accepting: false }) - 1;
    this.#accept(index);
    return listening.address;
  }

  /** Wakes the listeners that rest. */
  resume(): void {
    this.#listeners.forEach((_, index) => this.#accept(index));
  }

  /** Stops listening; `listenerClosed` follows for each. */
  close(): void {
    this.#closing = true;
    for (const listener of this.#listeners) {
      if (listener.fd < 0) continue;
      shutdownSocket(listener.fd);
      if (listener.accepting) this.ring.cancelFd(listener.fd, this.#cancelKind, 0);
      else this.#close(listener);
    }
  }

  #accept(index: number) {
    const listener = this.#listeners[index] as Listener;
    if (listener.accepting || listener.fd < 0 || this.#closing) return;
    listener.accepting = true;
    this.ring.accept(listener.fd, this.#acceptKind, index);
  }

  #onAccepted(index: number, result: number) {
    const listener = this.#listeners[index] as Listener;
    listener.accepting = false;
    if (this.#closing) {
      if (result >= 0) closeFile(result);
      return this.#close(listener);
    }
    if (result < 0) return this.events.acceptFailed(-result);
    this.#accept(index);
    this.events.accepted(result, "path" in listener.address);
  }

  #close(listener: Listener) {
    closeFile(listener.fd);
    listener.fd = -1;
    if ("path" in listener.address) removeSocketFile(listener.address.path);
    this.events.listenerClosed();
  }
}

function removeSocketFile(path: string): void {
  try {
    Deno.removeSync(path);
  } catch (error) {
    // Somebody removed it before us: what we wanted.
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}
