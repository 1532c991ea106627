/**
 * Promises over a backend, for code off the hot path. As many at once as the table of operations was given room
 * for; what comes beyond that waits, in order, and a store that holds its operations keeps no other one waiting.
 */
import type { Turns } from "../core/mod.ts";
import type { Backend } from "./backend.ts";
import { OPERATION, type OperationHandler, type Operations } from "./operations.ts";

/** A backend has at most so many in flight: deeper than any copier works. */
const PER_BACKEND_MAX = 64;

interface Call {
  readonly backend: Backend;
  readonly code: number;
  readonly at: number;
  readonly length: number;
  readonly address: number;
  readonly flags: number;
  readonly resolve: (errno: number) => void;
}

export class BackendCalls {
  readonly #owner: number;
  readonly #calls: (Call | undefined)[] = [];
  readonly #free: number[] = [];
  readonly #inFlight = new Map<Backend, number>();
  #total = 0;
  #waiting: Call[] = [];

  /** @param most operations in flight, of all that `operations` has room for. */
  constructor(
    readonly operations: Operations,
    readonly turns: Turns,
    readonly most: number,
  ) {
    const handler: OperationHandler = (index, errno) => {
      const call = this.#calls[index];
      this.#calls[index] = undefined;
      this.#free.push(index);
      turns.wake();
      if (!call) return;
      this.#ended(call.backend);
      call.resolve(errno);
    };
    this.#owner = operations.registerOwner(handler);
  }

  /** @returns 0 or a positive errno. */
  run(
    backend: Backend,
    code: number,
    { at, length, address, flags = 0 }: {
      at: number;
      length: number;
      address: number;
      flags?: number;
    },
  ): Promise<number> {
    return new Promise((resolve) => {
      const call = { backend, code, at, length, address, flags, resolve };
      if (this.#hasRoom(backend)) this.#submit(call);
      else this.#waiting.push(call);
    });
  }

  flush(backend: Backend): Promise<number> {
    return this.run(backend, OPERATION.flush, { at: 0, length: 0, address: 0 });
  }

  #hasRoom(backend: Backend): boolean {
    return this.#total < this.most && (this.#inFlight.get(backend) ?? 0) < PER_BACKEND_MAX;
  }

  #submit(call: Call) {
    const { backend, code, at, length, address, flags } = call;
    const index = this.#free.pop() ?? this.#calls.length;
    this.#calls[index] = call;
    this.#total++;
    this.#inFlight.set(backend, (this.#inFlight.get(backend) ?? 0) + 1);
    backend.submit(this.operations.take(this.#owner, index, code, at, length, address, flags));
  }

  #ended(backend: Backend) {
    const left = (this.#inFlight.get(backend) ?? 1) - 1;
    if (left > 0) this.#inFlight.set(backend, left);
    else this.#inFlight.delete(backend);
    this.#total--;
    const next = this.#waiting.findIndex((call) => this.#hasRoom(call.backend));
    if (next < 0) return;
    const [call] = this.#waiting.splice(next, 1);
    if (call) this.#submit(call);
  }
}
