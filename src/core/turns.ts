/**
 * What async code on the data-plane thread may wait for. That thread sleeps in its ring, so promises of the
 * runtime's own timers and files never settle there; whoever resolves one by hand has to wake the loop.
 */

/** A promise with its resolvers; settling it wakes the loop. */
export interface Deferred<T> {
  readonly promise: Promise<T>;
  readonly resolve: (value: T) => void;
  readonly reject: (error: unknown) => void;
}

export interface Turns {
  /** Resolves after `ms`, in the thread's own time; 0: after the requests that have arrived, without a pause. */
  sleep(ms: number): Promise<void>;
  deferred<T>(): Deferred<T>;
  /** Says that async code has something to do. Hot path. */
  wake(): void;
}
