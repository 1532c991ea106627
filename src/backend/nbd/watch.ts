/**
 * Ticks while an NBD client waits for answers, so that a server which stays connected and says nothing is
 * found out, without a look at the clock per request. A thread that was stopped itself misses ticks rather
 * than blaming its servers.
 */
import {
  allocateMemory,
  type Memory,
  type Reactor,
  timespecBytes,
  unmapMemory,
} from "../../sys/mod.ts";

const TICK = 0, CANCEL = 1;
/** A request is found out between the limit and one tick later. */
const TICKS_PER_LIMIT = 8;

export class NbdWatch {
  /** Counts up, once per tick. */
  tick = 0;
  readonly #reactor: Reactor;
  readonly #kind: number;
  readonly #timespec: Memory;
  /** @returns true while answers are still awaited. */
  readonly #onTick: () => boolean;
  #armed = false;
  #cancelling = false;
  #onQuiet: (() => void) | undefined;

  /** @param limitMs how long an answer may take; 0: for ever. */
  constructor(reactor: Reactor, readonly limitMs: number, onTick: () => boolean) {
    this.#reactor = reactor;
    this.#onTick = onTick;
    this.#kind = reactor.ring.register((index) => index === TICK ? this.#ticked() : this.#quiet());
    this.#timespec = allocateMemory(4096);
    this.#timespec.bytes.set(timespecBytes(limitMs / TICKS_PER_LIMIT));
  }

  /** Hot path: answers are awaited from now on. */
  arm(): void {
    if (this.#armed || this.limitMs === 0) return;
    this.#armed = true;
    this.#reactor.ring.timeout(this.#timespec.address, this.#kind, TICK);
  }

  /** True when a tick lies so far back that the limit has passed. @param times the limit. */
  isOver(since: number, times: number): boolean {
    return this.tick - since > TICKS_PER_LIMIT * times;
  }

  #ticked() {
    this.#armed = false;
    if (this.#onQuiet) return this.#settle();
    this.tick = (this.tick + 1) >>> 0;
    if (this.#onTick()) this.arm();
  }

  #quiet() {
    this.#cancelling = false;
    this.#settle();
  }

  #settle() {
    if (!this.#armed && !this.#cancelling) this.#onQuiet?.();
  }

  /** Stops, and gives memory and kind back. */
  async close(): Promise<void> {
    if (this.#armed) {
      const { promise, resolve } = this.#reactor.deferred<void>();
      this.#onQuiet = () => resolve();
      this.#cancelling = true;
      this.#reactor.ring.cancelTimeout(this.#kind, TICK, this.#kind, CANCEL);
      await promise;
    }
    this.#reactor.ring.unregister(this.#kind);
    unmapMemory(this.#timespec);
  }
}
