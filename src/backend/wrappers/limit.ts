/**
 * A slower, narrower backend: so many bytes a second, so many operations at a time; the rest waits, in order.
 * For tests. Hot path: `submit` and completions allocate nothing; only waiting for the rate is asynchronous.
 */
import type { Clock, Turns } from "../../core/mod.ts";
import type { Backend } from "../backend.ts";
import { OpQueue } from "../nbd/queue.ts";
import { OPERATION, type Operations } from "../operations.ts";
import { ForwardingBackend } from "./forwarding.ts";

const CLOSE_POLL_MS = 1;

export interface LimitOptions {
  readonly operations: Operations;
  readonly turns: Turns;
  readonly clock: Pick<Clock, "monotonicMs">;
  /** Bytes of reads and writes per second; default no limit. */
  readonly rate_bytes_per_s?: number;
  /** Operations that the backend sees at a time; default no limit. */
  readonly in_flight_max?: number;
}

export class LimitBackend extends ForwardingBackend {
  readonly #operations: Operations;
  readonly #turns: Turns;
  readonly #clock: Pick<Clock, "monotonicMs">;
  readonly #bytesPerMs: number;
  readonly #inFlightMax: number;
  readonly #owner: number;
  readonly #waiting: OpQueue;
  #inFlight = 0;
  /** When the bytes that were let through so far are paid for. */
  #paidAtMs = 0;
  #sleeping = false;
  #pumping = false;
  #closed = false;

  constructor(inner: Backend, options: LimitOptions) {
    super(inner);
    this.#operations = options.operations;
    this.#turns = options.turns;
    this.#clock = options.clock;
    this.#bytesPerMs = (options.rate_bytes_per_s ?? Infinity) / 1000;
    this.#inFlightMax = options.in_flight_max ?? Infinity;
    this.#owner = options.operations.registerOwner((op, errno) => this.#done(op, errno));
    this.#waiting = new OpQueue(options.operations.capacity);
  }

  override get description(): string {
    return `limited ${this.inner.description}`;
  }

  override submit(op: number): void {
    this.#waiting.push(op);
    this.#pump();
  }

  /** A backend may complete at once: then its completion asks for more while this still runs. */
  #pump() {
    if (this.#pumping) return;
    this.#pumping = true;
    this.#submitAllowed();
    this.#pumping = false;
  }

  #submitAllowed() {
    while (this.#waiting.length > 0 && this.#inFlight < this.#inFlightMax && !this.#sleeping) {
      const now = this.#clock.monotonicMs();
      if (now < this.#paidAtMs) {
        this.#pumpAfter(this.#paidAtMs - now);
        return;
      }
      const op = this.#waiting.shift(), operations = this.#operations;
      const code = operations.code[op] as number, length = operations.length[op] as number;
      if (code <= OPERATION.write) this.#paidAtMs = now + length / this.#bytesPerMs;
      this.#inFlight++;
      this.inner.submit(operations.take(
        this.#owner,
        op,
        code,
        operations.at[op] as number,
        length,
        operations.address[op] as number,
        operations.flags[op] as number,
      ));
    }
  }

  async #pumpAfter(ms: number): Promise<void> {
    this.#sleeping = true;
    await this.#turns.sleep(ms);
    this.#sleeping = false;
    this.#pump();
  }

  #done(op: number, errno: number) {
    this.#inFlight--;
    this.#operations.complete(op, errno);
    this.#pump();
  }

  override async close(): Promise<void> {
    while (this.#waiting.length + this.#inFlight > 0) await this.#turns.sleep(CLOSE_POLL_MS);
    await this.inner.close();
    if (this.#closed) return;
    this.#closed = true;
    this.#operations.unregisterOwner(this.#owner);
  }
}
