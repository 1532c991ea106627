/** Where bytes of a volume live, as the data plane sees them. One small interface; one conformance suite. */
import type { BackendMeter } from "./meter.ts";

/** A run of bytes. */
export interface Extent {
  readonly at: number;
  readonly length: number;
}

/**
 * What a backend does when its transport is lost.
 * `hold`: keep operations and replay them after a reconnect; the application waits but sees no error.
 * `fail`: fail operations at once, so that whoever mirrors into it can go on without it.
 */
export type LossPolicy = "hold" | "fail";

export interface Backend {
  /** For messages and status: `file /var/lib/psma/…`, `nbd unix:…`. */
  readonly description: string;
  /** Size in bytes; rises on `grow`. */
  readonly sizeBytes: number;
  /** What it did so far. */
  readonly meter: BackendMeter;
  /** Starts an operation of the shared table. Hot path. Completes through `Operations.complete`, maybe at once. */
  submit(op: number): void;
  /**
   * Runs of bytes in [from, from + length) that may hold something else than zeros, ascending, not
   * overlapping; a backend that cannot tell answers with the whole range.
   */
  dataExtents(from: number, length: number): Promise<readonly Extent[]>;
  /** Bytes that the store has allocated for it, where it can tell. */
  allocatedBytes(): number | undefined;
  /** Makes it at least `sizeBytes` large. @throws {PsmaError} state/... where it cannot grow by itself. */
  grow(sizeBytes: number): Promise<void>;
  /**
   * Lets its connections come in under a higher fencing epoch (`name@EPOCH`), anew where there are any;
   * operations wait meanwhile. Nothing where nothing is fenced, or the epoch is not higher.
   * @throws {PsmaError} store/unreachable, state/busy
   */
  raiseEpoch(epoch: number): Promise<void>;
  /** Changes what a lost transport means; a backend without a transport ignores it. */
  setLossPolicy(policy: LossPolicy): void;
  /** Drops the transport now, so that under `fail` everything in flight fails promptly. */
  abort(): void;
  /** True while operations can be expected to complete. */
  readonly connected: boolean;
  /** True once its server lets us in no more, for good: another has taken the bytes over. */
  readonly fenced?: boolean;
  /** Why it is not connected, where that is known. */
  readonly fault?: string | undefined;
  /** Called when the transport was lost: what was written and not flushed may be gone on the other side. */
  onLost: (() => void) | undefined;
  /** Waits for operations in flight; nothing may be submitted any more. */
  close(): Promise<void>;
}
