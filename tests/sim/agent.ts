/**
 * One life of an agent's data-plane process on a virtual machine: the real reactor, backends, volume, mirror
 * and their composition, from the opening of the volume to a graceful end or a kill.
 */
import { type MemorySource, PsmaError, type Rng, toPsmaError } from "../../src/core/mod.ts";
import { BackendCalls, BatchClock, Operations } from "../../src/backend/mod.ts";
import type { DataPlaneContext } from "../../src/dataplane/context.ts";
import type { DataPlaneEvent, OpenVolume } from "../../src/dataplane/messages.ts";
import { Repeats } from "../../src/dataplane/repeats.ts";
import { ServedVolume } from "../../src/dataplane/served_volume.ts";
import type { Digest } from "../../src/mirror/mod.ts";
import { mappedMemory, Reactor, useKernel } from "../../src/sys/mod.ts";
import { Requests, slotBytes } from "../../src/volume/mod.ts";
import { VirtualFiles } from "./files.ts";
import type { Machine } from "./machine.ts";
import { type CrashPoint, Killed, VirtualRing } from "./ring.ts";

const SLOTS = 16, CALLS_MAX = 128;
export const MAX_IO_BYTES = 64 * 1024;
const OPEN_AGAIN_MS = 250, ANSWER_LIMIT_MS = 30_000;

export interface AgentOptions {
  readonly machine: Machine;
  readonly digest: Digest;
  readonly open: OpenVolume;
  readonly coolEveryMs: number;
  readonly crashPoint: CrashPoint;
  readonly onEvent: (event: Omit<DataPlaneEvent, "at_ms">) => void;
  /** The volume is open. */
  readonly onOpen: (agent: Agent) => void;
}

export class Agent implements DataPlaneContext {
  readonly ring: VirtualRing;
  readonly reactor: Reactor;
  readonly operations: Operations;
  readonly requests: Requests;
  readonly arenaFd = undefined;
  readonly calls: BackendCalls;
  readonly clock: DataPlaneContext["clock"];
  readonly batchClock: BatchClock;
  readonly rng: Rng;
  readonly memory: MemorySource = mappedMemory;
  readonly files: VirtualFiles;
  readonly digest: Digest;
  readonly repeats: Repeats;
  readonly coolEveryMs: number;
  #served: ServedVolume | undefined;
  /** What an async task died of. */
  #failure: unknown;
  #isEnding = false;
  readonly #mail: (() => void)[] = [];
  readonly #mailKind: number;

  /** From here until its end this thread's calls go to its machine. */
  constructor(readonly options: AgentOptions) {
    const { machine, digest } = options, { world, kernel } = machine;
    kernel.frozen = false;
    useKernel(kernel);
    this.ring = new VirtualRing(world, kernel, options.crashPoint);
    this.clock = world.clock;
    this.rng = world.rng;
    this.coolEveryMs = options.coolEveryMs;
    this.digest = digest;
    this.reactor = new Reactor(this.ring, world.clock);
    this.files = new VirtualFiles(this.reactor, machine);
    this.batchClock = new BatchClock(world.clock, this.reactor);
    this.operations = new Operations(2 * SLOTS + CALLS_MAX, this.batchClock);
    const arena = mappedMemory.allocate(SLOTS * slotBytes(MAX_IO_BYTES));
    this.requests = new Requests(arena, SLOTS, MAX_IO_BYTES);
    this.calls = new BackendCalls(this.operations, this.reactor, CALLS_MAX);
    this.repeats = new Repeats(world.clock, (event) => this.emit(event));
    this.#mailKind = this.ring.register(() => {
      this.#mail.shift()?.();
      this.reactor.wake();
    });
  }

  /** Undefined until the volume is open, and once it is being closed. */
  get served(): ServedVolume | undefined {
    return this.ring.dead || this.#isEnding ? undefined : this.#served;
  }

  /** Lives until it is killed or ended. @throws what it died of, when that was its own fault. */
  async live(): Promise<"killed" | "ended"> {
    const { kernel } = this.options.machine;
    try {
      const running = this.reactor.run();
      this.#open();
      await running;
      if (this.#failure !== undefined) throw this.#failure;
      return "ended";
    } catch (error) {
      if (error instanceof Killed) return "killed";
      throw error;
    } finally {
      this.ring.kill();
      kernel.frozen = true;
      // What was queued before the kill comes to its end, on a machine that it cannot change any more.
      await new Promise((resolve) => setTimeout(resolve, 0));
      useKernel(undefined);
    }
  }

  /** Runs on the agent's thread, in its turn. */
  deliver(run: () => void): void {
    if (this.ring.dead) return;
    this.#mail.push(run);
    this.ring.post(this.#mailKind, 0, 0);
  }

  /** Ends gracefully. */
  end(): void {
    const served = this.served;
    if (!served) return;
    this.#isEnding = true;
    this.#run("close", served.close().then(() => this.reactor.stop()));
  }

  async #open() {
    for (;;) {
      try {
        this.#served = await ServedVolume.open(this.options.open, this);
        return this.options.onOpen(this);
      } catch (error) {
        if (this.ring.dead) return;
        if (!(error instanceof PsmaError)) return this.#die(error);
        const { world } = this.options.machine;
        world.note(`not opened: ${error.code}`);
        // Nobody else claims anything.
        if (error.code === "fenced/claimed") world.fail(error);
        await this.reactor.sleep(OPEN_AGAIN_MS);
      }
    }
  }

  #die(error: unknown) {
    this.#failure ??= error;
    this.reactor.stop();
  }

  #run(name: string, task: Promise<unknown>) {
    task.catch((error) => this.#die(new Error(`${name} failed: ${error}`, { cause: error })));
  }

  readonly ask: DataPlaneContext["ask"] = (name, argument) => {
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    const { world } = this.options.machine;
    const answer = (outcome: unknown) =>
      this.deliver(() => outcome instanceof PsmaError ? reject(outcome) : resolve(outcome));
    world.after(ANSWER_LIMIT_MS, () => answer(new PsmaError("timeout/store", "No answer")));
    this.options.machine.ask(name, argument, answer);
    // deno-lint-ignore no-explicit-any -- which answer belongs to which question is the machine's to keep
    return promise as Promise<any>;
  };

  emit(event: Omit<DataPlaneEvent, "at_ms">): void {
    const { world } = this.options.machine;
    world.note(`event ${event.type}: ${event.message}`);
    if (event.type === "volume.fenced" || event.type === "backup.split-brain") {
      world.fail(new Error(event.message));
    }
    this.options.onEvent(event);
  }

  supervise(name: string, task: Promise<unknown>): void {
    task.catch((error) => {
      const failure = toPsmaError(error);
      if (error instanceof PsmaError) {
        this.options.machine.world.note(`${name}: ${failure.message}`);
      } else this.#die(error);
    });
  }
}
