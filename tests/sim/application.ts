/**
 * The application: reads, writes, trims and flushes on the volume, through request slots as a frontend does
 * it, and every answer compared with what the oracle allows. It lives outside the agent and outlives it.
 */
import { OPERATION, OPERATION_FLAG } from "../../src/backend/mod.ts";
import type { Volume } from "../../src/volume/mod.ts";
import { type Agent, MAX_IO_BYTES } from "./agent.ts";
import { SECTOR_BYTES } from "./disk.ts";
import { fillBlocks, type Oracle, type Writing } from "./oracle.ts";
import type { World } from "./world.ts";

interface Pending {
  readonly code: number;
  readonly at: number;
  readonly length: number;
  readonly flags: number;
  readonly writing: Writing | undefined;
  /** When it began, for reads and flushes. */
  readonly begun: number;
}

export interface Habits {
  /** Mean pause between two requests. */
  readonly pauseMs: number;
  /** Requests that it has under way at most. */
  readonly depth: number;
  /** Share of the volume where most of its requests go. */
  readonly hotBytes: number;
}

export class Application {
  /** What it was answered. */
  readonly counts = { reads: 0, writes: 0, flushes: 0, errors: 0 };
  #agent: Agent | undefined;
  #volume: Volume | undefined;
  #owner = -1;
  readonly #pending = new Map<number, Pending>();
  #isResting = false;

  constructor(readonly world: World, readonly oracle: Oracle, readonly habits: Habits) {
    this.#goOn();
  }

  /** It works with this agent from now on. */
  use(agent: Agent, volume: Volume): void {
    this.#agent = agent;
    this.#volume = volume;
    this.#owner = agent.requests.registerOwner((slot) => this.#answered(agent, slot));
  }

  /** The agent is gone, and with it all answers. */
  lose(): void {
    for (const { code, begun } of this.#pending.values()) {
      if (code === OPERATION.read) this.oracle.endRead(begun);
    }
    this.#pending.clear();
    this.#agent = this.#volume = undefined;
  }

  /** Asks nothing any more, until it is asked to work again. */
  rest(): void {
    this.#isResting = true;
  }

  work(): void {
    this.#isResting = false;
  }

  get isIdle(): boolean {
    return this.#pending.size === 0;
  }

  #goOn() {
    this.world.after(-Math.log(1 - this.world.rng.float()) * this.habits.pauseMs, () => {
      const agent = this.#agent;
      if (agent && !this.#isResting && this.#pending.size < this.habits.depth) {
        agent.deliver(() => {
          if (this.#agent === agent && agent.served) this.#ask(agent);
        });
      }
      this.#goOn();
    });
  }

  #ask(agent: Agent) {
    const { world, oracle } = this;
    oracle.grow(this.#volume?.sizeBytes ?? 0);
    const chosen = world.rng.float();
    if (chosen < 0.3) return this.submit(agent, OPERATION.read, ...this.#place(MAX_IO_BYTES));
    if (chosen < 0.38) return this.submit(agent, OPERATION.flush, 0, 0, 0);
    const flags = world.chance(0.06) ? OPERATION_FLAG.fua : 0;
    const code = chosen < 0.42
      ? OPERATION.trim
      : chosen < 0.47
      ? OPERATION.writeZeroes
      : OPERATION.write;
    const isLarge = code !== OPERATION.write && world.chance(0.3);
    const [at, length] = this.#place(isLarge ? oracle.sizeBytes : MAX_IO_BYTES);
    this.submit(agent, code, at, length, flags);
  }

  #place(most: number): [number, number] {
    const { world, oracle, habits } = this, { sizeBytes } = oracle;
    const within = world.chance(0.8) ? Math.min(habits.hotBytes, sizeBytes) : sizeBytes;
    const blocks = within / SECTOR_BYTES;
    const first = world.rng.below(blocks);
    const large = world.chance(0.15) ? most / SECTOR_BYTES : world.chance(0.5) ? 8 : 24;
    const count = 1 + world.rng.below(Math.min(large, sizeBytes / SECTOR_BYTES - first));
    return [first * SECTOR_BYTES, count * SECTOR_BYTES];
  }

  /** Asks for one operation, where a slot is free. */
  submit(agent: Agent, code: number, at: number, length: number, flags = 0): boolean {
    const { requests } = agent, { oracle } = this;
    const slot = requests.take(this.#owner);
    const volume = this.#volume;
    if (slot < 0 || !volume) return false;
    const changes = code !== OPERATION.read && code !== OPERATION.flush;
    const writing = changes ? oracle.begin(at, length, code !== OPERATION.write) : undefined;
    if (writing && code === OPERATION.write) {
      const offset = requests.dataOffset(slot);
      fillBlocks(requests.arena.bytes.subarray(offset, offset + length), at, writing.version);
    }
    const begun = code === OPERATION.read
      ? oracle.beginRead()
      : code === OPERATION.flush
      ? oracle.beginFlush()
      : 0;
    this.#pending.set(slot, { code, at, length, flags, writing, begun });
    requests.describe(slot, code, at, length, flags);
    volume.submit(slot);
    return true;
  }

  /** Reads every byte, a few requests at a time. */
  async readAll(agent: Agent): Promise<void> {
    const { sizeBytes } = this.oracle;
    for (let at = 0; at < sizeBytes;) {
      const length = Math.min(MAX_IO_BYTES, sizeBytes - at);
      if (this.submit(agent, OPERATION.read, at, length)) at += length;
      else await agent.reactor.sleep(1);
    }
    while (!this.isIdle) await agent.reactor.sleep(1);
  }

  #answered(agent: Agent, slot: number) {
    const pending = this.#pending.get(slot), { requests } = agent;
    if (!pending || this.#agent !== agent || agent.ring.dead) return;
    this.#pending.delete(slot);
    const errno = requests.errno[slot] as number;
    this.world.note("answer", pending.code * 1000 + errno, pending.at);
    if (errno === 0) this.#done(agent, slot, pending);
    else this.#failed(pending);
    requests.release(slot);
  }

  #failed({ code, writing, begun }: Pending) {
    this.counts.errors++;
    // During a commit there is no way back: the side that failed is left as it is, told by the error.
    if (writing) this.oracle.fail(writing, this.#volume?.link?.committing ?? false);
    if (code === OPERATION.read) this.oracle.endRead(begun);
  }

  #done(agent: Agent, slot: number, { code, at, length, flags, writing, begun }: Pending) {
    const { oracle, counts } = this, { requests } = agent;
    if (writing) {
      counts.writes++;
      oracle.acknowledge(writing, (flags & OPERATION_FLAG.fua) !== 0);
    } else if (code === OPERATION.flush) {
      counts.flushes++;
      oracle.flushed(begun);
    } else {
      counts.reads++;
      oracle.endRead(begun);
      const offset = requests.dataOffset(slot);
      const bytes = requests.arena.bytes.subarray(offset, offset + length);
      this.world.attempt(() => oracle.check("a read", at, bytes, begun));
    }
  }
}
