/**
 * The data plane's lower rooms in the test's own thread: a real ring, driven only while a test body runs.
 * The body may await only what the ring completes; the runtime's own timers and files do not run meanwhile.
 */
import { BackendCalls, Operations } from "../../src/backend/mod.ts";
import { type MemorySource, systemClock, type Turns } from "../../src/core/mod.ts";
import { DiskFiles } from "../../src/dataplane/disk_files.ts";
import { mappedMemory, Reactor, UringRing } from "../../src/sys/mod.ts";
import { Requests, slotBytes } from "../../src/volume/mod.ts";

export const TEST_MAX_IO = 256 * 1024;

export interface InThread {
  readonly reactor: Reactor;
  /** The reactor, as rooms that know no kernel see it. */
  readonly turns: Turns;
  readonly memory: MemorySource;
  readonly files: DiskFiles;
  readonly operations: Operations;
  readonly calls: BackendCalls;
  readonly requests: Requests;
  readonly clock: typeof systemClock;
}

/** Runs `body` on a ring of its own and gives its result, or throws what it threw. */
export async function inThread<T>(body: (thread: InThread) => Promise<T>, slots = 32): Promise<T> {
  const reactor = new Reactor(new UringRing({ entries: 256 }));
  const operations = new Operations(1024);
  const thread: InThread = {
    reactor,
    turns: reactor,
    memory: mappedMemory,
    files: new DiskFiles(reactor),
    operations,
    calls: new BackendCalls(operations, reactor, 512),
    requests: new Requests(
      mappedMemory.allocate(slots * slotBytes(TEST_MAX_IO)),
      slots,
      TEST_MAX_IO,
    ),
    clock: systemClock,
  };
  const outcome = Promise.resolve().then(() => body(thread)).finally(() => reactor.stop());
  outcome.catch(() => {});
  await reactor.run();
  try {
    return await outcome;
  } finally {
    reactor.ring.close();
  }
}

const UNTIL_WITHIN_MS = 20_000;

/** Lets the ring go on until something holds. @throws {Error} at the deadline, naming what was waited for. */
export async function until(
  { reactor, clock }: InThread,
  holds: () => boolean,
  what: string,
): Promise<void> {
  const deadline_ms = clock.monotonicMs() + UNTIL_WITHIN_MS;
  while (!holds()) {
    if (clock.monotonicMs() >= deadline_ms) throw new Error(`Waited too long for ${what}`);
    await reactor.sleep(1);
  }
}

/** Lets the ring go on for a while, in which something must not come to hold. */
export async function never(
  { reactor, clock }: InThread,
  holds: () => boolean,
  { for_ms, what }: { for_ms: number; what: string },
): Promise<void> {
  const end_ms = clock.monotonicMs() + for_ms;
  while (clock.monotonicMs() < end_ms) {
    if (holds()) throw new Error(`There is ${what}`);
    await reactor.sleep(1);
  }
}
