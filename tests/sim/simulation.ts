/**
 * One simulated life of a volume: an agent, its application and operator, a store, and what goes wrong.
 * Everything follows from the seed. Faults stop after a while; then the volume must come to rest.
 */
import { decodeManifest, type Manifest, type Placement } from "../../src/codec/mod.ts";
import type { Digest } from "../../src/mirror/mod.ts";
import { Agent } from "./agent.ts";
import { Application } from "./application.ts";
import { SECTOR_BYTES, type VirtualFile } from "./disk.ts";
import { type Fault, Faults } from "./faults.ts";
import { IntentCheck } from "./intent_check.ts";
import { Machine } from "./machine.ts";
import { Network } from "./network.ts";
import { OlderAgent } from "./older_agent.ts";
import { Operator } from "./operator.ts";
import { fillBlocks, Oracle, Violation } from "./oracle.ts";
import { Store } from "./store.ts";
import { checkSwitch } from "./switch_check.ts";
import { World } from "./world.ts";

const DIRECTORY = "/node/volume", MANIFEST = `${DIRECTORY}/manifest`;
const MAX_SIZE_BYTES = 2 ** 40, CHUNK_BYTES = 65_536;
/** How long the volume may take to come to rest when nothing goes wrong any more. */
const REST_LIMIT_MS = 180_000;

/** What a run came to. */
export interface Outcome {
  readonly seed: number;
  readonly failure: unknown;
  readonly hash: number;
  readonly lines: readonly string[];
  readonly kills: number;
  readonly powerLosses: number;
  readonly storeLosses: number;
  readonly switches: number;
  readonly writes: number;
  readonly blocksChecked: number;
  /** Of mirrors that were opened after a power loss and keep a write-intent log, how much was in doubt. */
  readonly intent: Pick<IntentCheck, "checked" | "doubtedBytes" | "mirroredBytes">;
  readonly virtualMs: number;
}

export interface SimulationOptions {
  /** Keeps a line of all that happens. */
  readonly tells?: boolean;
  /** Instead of the seed's choice. */
  readonly faults?: readonly Fault[] | undefined;
  /** How many times longer than otherwise things go wrong. */
  readonly chaosFactor?: number;
}

export class Simulation {
  readonly world: World;
  readonly network: Network;
  readonly store: Store;
  readonly machine: Machine;
  readonly oracle: Oracle;
  readonly application: Application;
  readonly operator: Operator;
  readonly faults: Faults;
  readonly #intent: IntentCheck;
  readonly #olderAgent: OlderAgent;
  #agent: Agent | undefined;
  #manifest: Manifest | undefined;
  #commits = 0;
  #lives = 0;
  #kills = 0;
  #powerLosses = 0;
  #storeLosses = 0;
  #stepsToKill = Infinity;
  #storeLostPowerWhileSwitching = false;
  /** The process was killed by a power loss, which is still to be worked off. */
  #powerIsLost = false;
  #powerCameBack = false;
  #isCalm = false;
  readonly #initialBytes: number;
  readonly #coolEveryMs: number;

  constructor(
    seed: number,
    readonly digest: Digest,
    { tells = false, faults, chaosFactor = 1 }: SimulationOptions = {},
  ) {
    const world = this.world = new World(seed, tells);
    this.network = new Network(world);
    this.store = new Store(world, this.network, digest);
    this.machine = new Machine(world, this.network, this.store);
    this.#intent = new IntentCheck(this.machine.disk, DIRECTORY);
    this.#olderAgent = new OlderAgent(world, this.network);
    this.#initialBytes = (4 + world.rng.below(28)) * CHUNK_BYTES;
    const filled = world.rng.float();
    this.oracle = this.#makeSource(filled);
    this.application = new Application(world, this.oracle, {
      pauseMs: world.between(1, 20),
      depth: 1 + world.rng.below(8),
      hotBytes: world.pick([64, 256, 1024]) * 1024,
    });
    this.operator = new Operator(world, this.machine, this.application, {
      networkTargets: world.pick([0, 0.7, 1]),
      writeThroughTimeoutMs: world.pick([50, 200, 1000]),
      resyncIntervalMs: world.pick([100, 500]),
      durability: world.pick(["process", "power"]),
      pauseMs: world.between(30, 400),
    });
    this.machine.disk.onRename = (path, file) => this.#renamed(path, file);
    this.store.disk.mayFlip = () => this.#isOnlyFilled();
    this.#coolEveryMs = world.pick([30, 100, 500]);
    this.faults = new Faults(world, this.#victims(), world.between(100, 1500), faults);
    const chaosMs = world.between(2000, 10_000) * chaosFactor;
    world.after(chaosMs, () => this.#calmDown());
  }

  /**
   * The store is being copied to and nothing else: what it flips then is compared by digests. What it flips of a
   * write that goes through is found by the gate, unless the chunk is written again and again until the commit,
   * which then counts it as not verified.
   */
  #isOnlyFilled(): boolean {
    const link = this.#agent?.served?.volume.link;
    return link !== undefined && !link.writeThrough &&
      this.#manifest?.active.backend.type === "file";
  }

  #makeSource(filled: number): Oracle {
    const { world } = this, bytes = new Uint8Array(this.#initialBytes);
    const blocks = new Set<number>();
    for (let at = 0; at < bytes.length; at += CHUNK_BYTES / 4) {
      if (!world.chance(filled)) continue;
      fillBlocks(bytes.subarray(at, at + CHUNK_BYTES / 4), at, 1);
      for (let i = 0; i < CHUNK_BYTES / 4; i += SECTOR_BYTES) blocks.add((at + i) / SECTOR_BYTES);
    }
    this.machine.disk.provide("/disk/t0", bytes);
    return new Oracle(bytes.length, (block) => blocks.has(block));
  }

  #victims() {
    const { store, network } = this;
    return {
      nodeDisk: this.machine.disk,
      store,
      network,
      kill: () => this.#agent?.ring.kill(),
      nodePowerLoss: () => this.#nodePowerLoss(),
      storePowerLoss: () => this.#storePowerLoss(),
      olderAgent: () => {
        if (this.#agent?.served && this.#manifest) {
          this.#olderAgent.act(this.#manifest, this.#lives);
        }
      },
    };
  }

  async run(): Promise<Outcome> {
    const { world } = this;
    try {
      while (!this.operator.isDone) {
        await this.#oneLife();
        const restartMs = world.nowMs + world.between(1, 300);
        while (world.step(restartMs));
        // Also while it was off.
        await this.#afterPowerLoss();
      }
    } catch (failure) {
      world.fail(failure);
    }
    return {
      seed: world.seed,
      failure: world.failure,
      hash: world.hash,
      lines: world.lines,
      kills: this.#kills,
      powerLosses: this.#powerLosses,
      storeLosses: this.#storeLosses,
      switches: this.#commits,
      writes: this.application.counts.writes,
      blocksChecked: this.oracle.checked,
      intent: this.#intent,
      virtualMs: world.nowMs,
    };
  }

  async #oneLife(): Promise<void> {
    const { world, application, operator } = this;
    this.#rememberManifest();
    this.#lives++;
    if (!this.#isCalm && this.faults.chosen.includes("kill")) {
      this.#stepsToKill = 20 + world.rng.below(6000);
    }
    const agent = this.#agent = new Agent({
      machine: this.machine,
      digest: this.digest,
      coolEveryMs: this.#coolEveryMs,
      open: {
        name: "data",
        directory: DIRECTORY,
        max_size_bytes: MAX_SIZE_BYTES,
        initial: {
          store: "local",
          store_volume: "t0",
          size_bytes: this.#initialBytes,
          backend: { type: "file", path: "/disk/t0" },
        },
      },
      crashPoint: () => --this.#stepsToKill === 0,
      onEvent: ({ type }) => this.#intent.told(type),
      onOpen: (opened) => {
        if (!opened.served) return;
        const { link } = opened.served.volume;
        world.attempt(() => this.#intent.opened(link, this.#manifest?.mirror?.id));
        application.use(opened, opened.served.volume);
        operator.use(opened);
      },
    });
    const how = await agent.live();
    world.note(`the agent's process has ${how}`);
    if (how === "killed") this.#kills++;
    application.lose();
    operator.lose();
    this.oracle.processLoss();
    if (this.#powerIsLost) this.#loseNodePower();
  }

  #nodePowerLoss() {
    this.#powerLosses++;
    this.network.clientVanished();
    const isOff = this.#agent?.ring.dead ?? true;
    if (isOff) return this.#loseNodePower();
    this.#agent?.ring.kill();
    this.#powerIsLost = true;
  }

  async #afterPowerLoss() {
    if (!this.#powerCameBack) return;
    this.#powerCameBack = false;
    this.#rememberManifest();
    await this.#intent.powerIsBack(this.#manifest?.mirror);
  }

  #loseNodePower() {
    this.#powerIsLost = false;
    this.#powerCameBack = true;
    this.machine.powerLoss();
    this.oracle.powerLoss(false);
  }

  #storePowerLoss() {
    if (!this.store.isUp) return;
    this.#storeLosses++;
    const served = this.#agent?.served;
    if (served?.mirrorStatus()?.state === "switching") this.#storeLostPowerWhileSwitching = true;
    this.store.powerLoss();
    if (this.#manifest?.active.backend.type === "nbd") this.oracle.powerLoss(true);
  }

  #calmDown() {
    this.world.note("calm");
    this.#isCalm = true;
    this.#stepsToKill = Infinity;
    this.faults.stop();
    this.operator.finish();
    this.world.after(REST_LIMIT_MS, () => {
      if (!this.operator.isDone) this.world.fail(new Violation("the volume does not come to rest"));
    });
  }

  #rememberManifest() {
    const file = this.machine.disk.find(MANIFEST);
    this.#manifest = file && decodeManifest(file.cache, MANIFEST);
  }

  /** The moment of truth: from here on the manifest says what is active. */
  #renamed(path: string, file: VirtualFile) {
    if (path !== MANIFEST) return;
    const { world } = this, former = this.#manifest;
    const manifest = this.#manifest = decodeManifest(file.cache, path);
    if (manifest.prepare) this.#storeLostPowerWhileSwitching = false;
    // One that falls back takes a commit back whose outcome was open: the source holds everything as well.
    if (!former || former.epoch >= manifest.epoch) return;
    world.note("committed", manifest.epoch);
    // A claim, which leaves the bytes where they are.
    if (samePlace(former.active, manifest.active)) return;
    this.#commits++;
    const lostPower = this.#storeLostPowerWhileSwitching;
    if (lostPower) this.oracle.powerLoss(true);
    world.attempt(() =>
      checkSwitch({
        oracle: this.oracle,
        source: this.machine.bytesOf(former.active),
        target: this.machine.fileOf(manifest.active),
        lostPower,
      })
    );
  }
}

function samePlace(one: Placement, other: Placement): boolean {
  return one.store === other.store && one.store_volume === other.store_volume;
}
