/** Operations fail where a rule says so, and never reach the backend. For tests. Hot path: allocates nothing. */
import type { Backend } from "../backend.ts";
import { OPERATION, type Operations } from "../operations.ts";
import { ForwardingBackend } from "./forwarding.ts";

/** @param code of OPERATION. @returns the errno to fail with, or 0. Hot path. */
export type FaultRule = (code: number, at: number, length: number) => number;

export class ErrorBackend extends ForwardingBackend {
  /** Operations that were failed. */
  failed = 0;
  readonly #operations: Operations;

  constructor(inner: Backend, operations: Operations, public rule: FaultRule = noFault) {
    super(inner);
    this.#operations = operations;
  }

  override get description(): string {
    return `failing ${this.inner.description}`;
  }

  override submit(op: number): void {
    const { code, at, length } = this.#operations;
    const errno = this.rule(code[op] as number, at[op] as number, length[op] as number);
    if (errno === 0) return this.inner.submit(op);
    this.failed++;
    this.#operations.complete(op, errno);
  }
}

/** Nothing fails. */
export function noFault(): number {
  return 0;
}

/** Fails one operation of a kind: the n-th from now on, counted from 1. */
export function failNth(
  kind: keyof typeof OPERATION,
  { nth, errno }: { nth: number; errno: number },
): FaultRule {
  let seen = 0;
  return (code) => code === OPERATION[kind] && ++seen === nth ? errno : 0;
}
