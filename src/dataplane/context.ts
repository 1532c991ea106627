/** What the data-plane thread has once for all its volumes, as an open volume sees it. */
import type { BackendCalls, Operations } from "../backend/mod.ts";
import type { Clock, MemorySource, Rng } from "../core/mod.ts";
import type { Digest } from "../mirror/mod.ts";
import type { Reactor } from "../sys/mod.ts";
import type { Requests } from "../volume/mod.ts";
import type { DiskFiles } from "./disk_files.ts";
import type { DataPlaneEvent } from "./messages.ts";
import type { Ask } from "./questioner.ts";
import type { Repeats } from "./repeats.ts";

export interface DataPlaneContext {
  readonly reactor: Reactor;
  readonly operations: Operations;
  readonly requests: Requests;
  /** The memory file of the requests' arena, where FUSE exports must be able to replay from it. */
  readonly arenaFd: number | undefined;
  readonly calls: BackendCalls;
  readonly clock: Clock;
  /** For what is timed per request. */
  readonly batchClock: Clock;
  readonly rng: Rng;
  readonly memory: MemorySource;
  readonly files: DiskFiles;
  readonly digest: Digest;
  /** Asks the main thread about a store that only it can reach. */
  readonly ask: Ask;
  emit(event: Omit<DataPlaneEvent, "at_ms">): void;
  /** Events of connections go through it: they may repeat for ever. */
  readonly repeats: Repeats;
  /** Lets a task run on its own; its failure becomes an event. */
  supervise(name: string, task: Promise<unknown>): void;
  /** How often written regions of a mirror's write-intent log may cool; left out: as `mirror/cooling.ts` has it. */
  readonly coolEveryMs?: number;
}
