/**
 * Writes of which only the beginning lands, and which then fail: what a crash or a dying disk leaves behind.
 * For tests. Hot path: allocates nothing.
 */
import type { Backend } from "../backend.ts";
import { OPERATION, type Operations } from "../operations.ts";
import { ForwardingBackend } from "./forwarding.ts";

const EIO = 5;

/** @returns bytes of the write that land before it fails, less than `length`; -1: it is whole. Hot path. */
export type TearRule = (at: number, length: number) => number;

export class TornBackend extends ForwardingBackend {
  /** Writes that were torn. */
  torn = 0;
  readonly #operations: Operations;
  readonly #owner: number;
  #closed = false;

  constructor(inner: Backend, operations: Operations, public rule: TearRule = whole) {
    super(inner);
    this.#operations = operations;
    this.#owner = operations.registerOwner((op, errno) =>
      operations.complete(op, errno === 0 ? EIO : errno)
    );
  }

  override get description(): string {
    return `tearing ${this.inner.description}`;
  }

  override submit(op: number): void {
    const operations = this.#operations;
    if (operations.code[op] !== OPERATION.write) return this.inner.submit(op);
    const at = operations.at[op] as number;
    const lands = this.rule(at, operations.length[op] as number);
    if (lands < 0) return this.inner.submit(op);
    this.torn++;
    if (lands === 0) return operations.complete(op, EIO);
    const address = operations.address[op] as number, flags = operations.flags[op] as number;
    this.inner.submit(
      operations.take(this.#owner, op, OPERATION.write, at, lands, address, flags),
    );
  }

  override async close(): Promise<void> {
    await this.inner.close();
    if (this.#closed) return;
    this.#closed = true;
    this.#operations.unregisterOwner(this.#owner);
  }
}

/** Every write lands whole. */
export function whole(): number {
  return -1;
}
