/** A backend over a backend that changes nothing: what every wrapper starts from. */
import type { Backend, Extent, LossPolicy } from "../backend.ts";
import type { BackendMeter } from "../meter.ts";

export class ForwardingBackend implements Backend {
  constructor(protected readonly inner: Backend) {}

  get description(): string {
    return this.inner.description;
  }

  get sizeBytes(): number {
    return this.inner.sizeBytes;
  }

  get meter(): BackendMeter {
    return this.inner.meter;
  }

  get connected(): boolean {
    return this.inner.connected;
  }

  get onLost(): (() => void) | undefined {
    return this.inner.onLost;
  }

  set onLost(tell: (() => void) | undefined) {
    this.inner.onLost = tell;
  }

  submit(op: number): void {
    this.inner.submit(op);
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

  raiseEpoch(epoch: number): Promise<void> {
    return this.inner.raiseEpoch(epoch);
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
