/**
 * Operations reach the backend later: after a time, or when they are let go. For tests of draining,
 * back-pressure and time limits. Order is kept among those that wait. Hot path: `submit` allocates nothing.
 */
import type { Clock, Turns } from "../../core/mod.ts";
import type { Backend } from "../backend.ts";
import { OpQueue } from "../nbd/queue.ts";
import type { Operations } from "../operations.ts";
import { ForwardingBackend } from "./forwarding.ts";

const CLOSE_POLL_MS = 1;

export interface DelayOptions {
  readonly operations: Operations;
  readonly turns: Turns;
  readonly clock: Pick<Clock, "monotonicMs">;
}

export class DelayBackend extends ForwardingBackend {
  /** How much later each operation is submitted from now on. */
  delayMs = 0;
  readonly #turns: Turns;
  readonly #clock: Pick<Clock, "monotonicMs">;
  readonly #dueMs: Float64Array;
  readonly #delayed: OpQueue;
  readonly #held: OpQueue;
  #holding = false;
  #running = false;

  constructor(inner: Backend, { operations, turns, clock }: DelayOptions) {
    super(inner);
    this.#turns = turns;
    this.#clock = clock;
    this.#dueMs = new Float64Array(operations.capacity);
    this.#delayed = new OpQueue(operations.capacity);
    this.#held = new OpQueue(operations.capacity);
  }

  override get description(): string {
    return `delayed ${this.inner.description}`;
  }

  /** Operations that wait for `release`. */
  get held(): number {
    return this.#held.length;
  }

  /** Holds new operations back until `release`. */
  hold(): void {
    this.#holding = true;
  }

  /** Lets new operations through; those that are held stay so. */
  overtake(): void {
    this.#holding = false;
  }

  /** Lets everything go that is held, in order. */
  release(): void {
    this.#holding = false;
    for (let left = this.#held.length; left > 0; left--) this.inner.submit(this.#held.shift());
  }

  override submit(op: number): void {
    if (this.#holding) return this.#held.push(op);
    if (this.delayMs === 0 && this.#delayed.length === 0) return this.inner.submit(op);
    this.#dueMs[op] = this.#clock.monotonicMs() + this.delayMs;
    this.#delayed.push(op);
    if (!this.#running) this.#run();
  }

  /** Submits what is due until nothing waits. Never rejects. */
  async #run(): Promise<void> {
    this.#running = true;
    while (this.#delayed.length > 0) {
      const leftMs = (this.#dueMs[this.#delayed.first] as number) - this.#clock.monotonicMs();
      if (leftMs > 0) await this.#turns.sleep(leftMs);
      else this.inner.submit(this.#delayed.shift());
    }
    this.#running = false;
  }

  /** Lets everything go, then closes. */
  override async close(): Promise<void> {
    this.release();
    while (this.#delayed.length > 0) await this.#turns.sleep(CLOSE_POLL_MS);
    await this.inner.close();
  }
}
