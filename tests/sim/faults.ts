/** What goes wrong, when and for how long: each run has its own selection, so that rare pairs meet often. */
import { fairWeather, type VirtualDisk } from "./disk.ts";
import type { Network } from "./network.ts";
import type { Store } from "./store.ts";
import type { World } from "./world.ts";

export const FAULTS = [
  "kill",
  "node-power",
  "store-crash",
  "store-power",
  "cut",
  "stall",
  "node-errors",
  "store-errors",
  "store-full",
  "store-slow",
  "node-slow",
  "bit-flips",
  "shorts",
  "clock",
  "older-agent",
] as const;

export type Fault = (typeof FAULTS)[number];

/** Who suffers. */
export interface Victims {
  readonly nodeDisk: VirtualDisk;
  readonly network: Network;
  readonly store: Store;
  /** Kills the agent's process now. */
  kill(): void;
  /** The agent's machine loses its power now. */
  nodePowerLoss(): void;
  storePowerLoss(): void;
  /** An agent with a copy of the state directory does something. */
  olderAgent(): void;
}

export class Faults {
  /** How often each struck. */
  readonly struck: Partial<Record<Fault, number>> = {};
  readonly #chosen: readonly Fault[];
  #isOver = false;

  /** @param only instead of those that the seed chooses. */
  constructor(
    readonly world: World,
    readonly victims: Victims,
    readonly meanPauseMs: number,
    only?: readonly Fault[],
  ) {
    const share = world.rng.float();
    const chosen = FAULTS.filter(() => world.chance(share));
    this.#chosen = only ?? chosen;
    this.#goOn();
  }

  get chosen(): readonly Fault[] {
    return this.#chosen;
  }

  /** Nothing goes wrong any more; what is broken is repaired. */
  stop(): void {
    this.#isOver = true;
    const { nodeDisk, store, network } = this.victims;
    nodeDisk.weather = fairWeather();
    store.disk.weather = fairWeather();
    network.heal();
    store.start();
  }

  #goOn() {
    const { world } = this;
    if (this.#chosen.length === 0) return;
    world.after(-Math.log(1 - world.rng.float()) * this.meanPauseMs, () => {
      if (this.#isOver) return;
      const fault = world.pick(this.#chosen);
      this.struck[fault] = (this.struck[fault] ?? 0) + 1;
      world.note(`fault: ${fault}`);
      this.#strike(fault);
      this.#goOn();
    });
  }

  /** Ends what a fault began, after a while. */
  #until(ms: number, end: () => void) {
    this.world.after(ms, () => {
      if (!this.#isOver) end();
    });
  }

  #strike(fault: Fault) {
    const { world, victims } = this, { nodeDisk, store, network } = victims;
    const briefly = () => world.chance(0.8) ? world.between(5, 400) : world.between(400, 12_000);
    switch (fault) {
      case "kill":
        return victims.kill();
      case "node-power":
        return victims.nodePowerLoss();
      case "store-crash":
        store.crash();
        return this.#until(briefly(), () => store.start());
      case "store-power":
        victims.storePowerLoss();
        return this.#until(briefly(), () => store.start());
      case "cut":
        network.cut();
        return this.#until(briefly(), () => network.heal());
      case "stall":
        network.stall();
        return this.#until(briefly(), () => network.heal());
      case "older-agent":
        return victims.olderAgent();
      case "clock":
        return world.stepWallClock(world.between(-3_600_000, 3_600_000));
      case "node-errors":
        return this.#weather(nodeDisk, { errors: world.between(0.002, 0.2) });
      case "store-errors":
        return this.#weather(store.disk, { errors: world.between(0.002, 0.3) });
      case "store-full":
        return this.#weather(store.disk, { full: true });
      case "store-slow":
        return this.#weather(store.disk, { stalls: world.between(0.02, 0.3) });
      case "node-slow":
        return this.#weather(nodeDisk, { stalls: world.between(0.02, 0.2) });
      case "shorts":
        this.#weather(nodeDisk, { shorts: 0.2 });
        return this.#weather(store.disk, { shorts: 0.2 });
      case "bit-flips":
        return this.#weather(store.disk, { bitFlips: world.between(0.02, 0.5) });
    }
  }

  #weather(disk: VirtualDisk, change: Partial<VirtualDisk["weather"]>) {
    disk.weather = { ...disk.weather, ...change };
    this.#until(this.world.between(20, 1500), () => {
      disk.weather = fairWeather();
    });
  }
}
