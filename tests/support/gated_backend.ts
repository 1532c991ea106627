/** A backend whose operations can be held back and let go: for tests of draining and back-pressure. */
import type { Backend, Extent, LossPolicy } from "../../src/backend/mod.ts";

export class GatedBackend implements Backend {
  onLost: (() => void) | undefined = undefined;
  #holding = false;
  #held: number[] = [];

  constructor(readonly inner: Backend) {}

  get description(): string {
    return `gated ${this.inner.description}`;
  }

  get sizeBytes(): number {
    return this.inner.sizeBytes;
  }

  get connected(): boolean {
    return this.inner.connected;
  }

  /** Operations that wait for `release`. */
  get held(): number {
    return this.#held.length;
  }

  hold(): void {
    this.#holding = true;
  }

  /** Lets new operations through; those that are held stay so. */
  overtake(): void {
    this.#holding = false;
  }

  release(): void {
    this.#holding = false;
    const held = this.#held;
    this.#held = [];
    for (const op of held) this.inner.submit(op);
  }

  submit(op: number): void {
    if (this.#holding) this.#held.push(op);
    else this.inner.submit(op);
  }

  dataExtents(from: number, length: number): Promise<readonly Extent[]> {
    return this.inner.dataExtents(from, length);
  }

  allocatedBytes(): number | undefined {
    return this.inner.allocatedBytes();
  }

  grow(sizeBytes: number): Promise<void> {
    return this.inner.grow(sizeBytes);
  }

  setLossPolicy(policy: LossPolicy): void {
    this.inner.setLossPolicy(policy);
  }

  abort(): void {
    this.inner.abort();
  }

  close(): Promise<void> {
    return this.inner.close();
  }
}
