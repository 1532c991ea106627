/** Memory at fixed addresses, as rooms see it that never ask the kernel for any themselves. */

/** A region. `address` is what an operation takes, `bytes` is what we read and write. */
export interface Memory {
  readonly address: number;
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/** Where memory comes from and goes back to. */
export interface MemorySource {
  /** Private zeroed memory, page-aligned. @param length bytes. */
  allocate(length: number): Memory;
  /** The region must not be used afterwards, by nobody. */
  release(memory: Memory): void;
}
