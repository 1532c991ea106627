/**
 * Who runs the volume: starts mirrors, pauses, resumes, cancels, converges, switches and retires, in any
 * order that a person or the agent's main loop could choose, and at the end brings the volume to rest.
 */
import { PsmaError } from "../../src/core/mod.ts";
import type { BackupOrder, Placement } from "../../src/dataplane/messages.ts";
import type { MirrorTerms } from "../../src/codec/mod.ts";
import type { ServedVolume } from "../../src/dataplane/served_volume.ts";
import type { Agent } from "./agent.ts";
import type { Application } from "./application.ts";
import { SECTOR_BYTES } from "./disk.ts";
import type { Machine } from "./machine.ts";
import { STORE_URI } from "./store.ts";
import type { World } from "./world.ts";

const VOLUME = "data";
const CHUNK_BYTES = 65_536;

export interface Ways {
  /** Share of targets on the network store; the others are files on the same machine. */
  readonly networkTargets: number;
  readonly writeThroughTimeoutMs: number;
  readonly resyncIntervalMs: number;
  readonly durability: MirrorTerms["durability"];
  /** Mean pause between two commands. */
  readonly pauseMs: number;
}

export class Operator {
  switches = 0;
  /** Nothing is left to do. */
  isDone = false;
  #agent: Agent | undefined;
  #isBusy = false;
  #isFinishing = false;
  #made = 0;

  constructor(
    readonly world: World,
    readonly machine: Machine,
    readonly application: Application,
    readonly ways: Ways,
  ) {
    this.#goOn();
  }

  use(agent: Agent): void {
    this.#agent = agent;
    this.#isBusy = false;
  }

  lose(): void {
    this.#agent = undefined;
  }

  /** From now on it only brings the volume to rest. */
  finish(): void {
    this.#isFinishing = true;
  }

  #goOn() {
    const { world, ways } = this;
    world.after(-Math.log(1 - world.rng.float()) * ways.pauseMs, () => {
      const agent = this.#agent;
      if (agent?.served && !this.#isBusy) {
        agent.deliver(() => {
          if (this.#agent === agent && !this.#isBusy && agent.served) {
            this.#act(agent, agent.served);
          }
        });
      }
      if (!this.isDone) this.#goOn();
    });
  }

  #act(agent: Agent, served: ServedVolume) {
    this.#isBusy = true;
    const step = this.#isFinishing
      ? this.#bringToRest(agent, served)
      : this.#command(agent, served);
    step.catch((error) => {
      if (agent.ring.dead) return;
      const reason = served.mirrorStatus()?.reason ?? "";
      if (error instanceof PsmaError) this.world.note(`refused: ${error.message} (${reason})`);
      else this.world.fail(error);
    }).finally(() => {
      if (this.#agent === agent) this.#isBusy = false;
    });
  }

  async #command(agent: Agent, served: ServedVolume): Promise<void> {
    const { world } = this;
    const mirror = served.mirrorStatus(), { backup } = served.status(undefined);
    if (backup && world.chance(0.2)) return await this.#retire(served, backup);
    if (!mirror || (mirror.role === "backup" && world.chance(0.3))) {
      return await this.#startMirror(served);
    }
    const { state } = mirror;
    const chosen = world.rng.float();
    if (state === "paused" || state === "failed") {
      if (chosen < 0.85) await this.#told("resume", () => served.pauseMirror(false));
      else await this.#cancel(served);
    } else if (chosen < 0.12) await this.#told("pause", () => served.pauseMirror(true));
    else if (chosen < 0.18) await this.#cancel(served);
    else if (chosen < 0.35) {
      await this.#told("converge", () => served.converge(world.between(100, 6000)));
    } else if (chosen < 0.75) await this.#switch(served, world.between(500, 10_000));
    else if (chosen < 0.82) await this.#verify(served);
    else if (chosen < 0.87) {
      world.note("ends gracefully");
      agent.end();
    }
  }

  async #verify(served: ServedVolume): Promise<void> {
    const { world } = this, isResumed = world.chance(0.3);
    if (world.chance(0.2)) return void await this.#told("stop verify", () => served.stopVerify());
    const id = `verify-${++this.#made}`, max_rate_bytes_per_s = world.chance(0.3) ? 2 ** 20 : null;
    const side = world.pick(["mirror", "backup"] as const);
    const start = { volume: VOLUME, id, side, max_rate_bytes_per_s, resume: isResumed };
    await this.#told(`verify ${side}`, () => served.beginVerify(start));
  }

  async #told(what: string, command: () => Promise<unknown>) {
    this.world.note(`asks: ${what}`);
    await command();
    this.world.note(`done: ${what}`);
  }

  async #startMirror(served: ServedVolume): Promise<void> {
    const { world, ways, machine } = this;
    const { size_bytes, epoch, active } = served.status(undefined);
    const grows = world.chance(0.5) ? 0 : world.rng.below(8) * CHUNK_BYTES;
    const odd = world.chance(0.2) ? SECTOR_BYTES * world.rng.below(128) : 0;
    const bytes = new Uint8Array(size_bytes + grows + odd);
    const id = `t${++this.#made}`, isReused = world.chance(0.3);
    if (isReused) this.#use(bytes.subarray(0, size_bytes), machine.bytesOf(active));
    const isRemote = world.chance(ways.networkTargets);
    if (isRemote) machine.store.make(id, bytes, epoch);
    else machine.disk.provide(`/disk/${id}`, bytes);
    const target: Placement = {
      store: isRemote ? "far" : "local",
      store_volume: id,
      size_bytes: bytes.length,
      backend: isRemote
        ? { type: "nbd", uri: `${STORE_URI}/${id}@${epoch + 1}` }
        : { type: "file", path: `/disk/${id}` },
    };
    await this.#told(`mirror to ${id}${isReused ? ", re-used" : ""}`, () =>
      served.startMirror({
        volume: VOLUME,
        id: `m-${id}`,
        target,
        terms: this.#terms(),
        compare: isReused,
      }));
  }

  /** A target that held data before: here what the source holds, there something else, or nothing. */
  #use(target: Uint8Array<ArrayBuffer>, source: Uint8Array<ArrayBuffer>) {
    const { world } = this, same = world.rng.float();
    for (let at = 0; at < target.length; at += CHUNK_BYTES / 2) {
      const part = target.subarray(at, at + CHUNK_BYTES / 2);
      if (world.chance(same)) part.set(source.subarray(at, at + part.length));
      else if (world.chance(0.7)) part.fill(1 + world.rng.below(255));
    }
  }

  #terms(): MirrorTerms {
    const { ways, world } = this;
    return {
      max_rate_bytes_per_s: world.chance(0.3) ? 4 * 2 ** 20 : null,
      min_rate_bytes_per_s: 2 ** 20,
      write_through_timeout_ms: ways.writeThroughTimeoutMs,
      resync_interval_ms: ways.resyncIntervalMs,
      durability: ways.durability,
    };
  }

  async #cancel(served: ServedVolume): Promise<void> {
    const mirror = served.mirrorStatus();
    await this.#told("cancel", () => served.cancelMirror());
    // A backup that is followed no more is still the backup.
    if (mirror?.role === "scale") this.#delete(mirror.target);
  }

  async #retire(served: ServedVolume, backup: Placement): Promise<void> {
    await this.#told("retire", () => served.retireBackup());
    this.#delete(backup);
  }

  #delete({ backend, store_volume }: Placement) {
    if (backend.type === "file") this.machine.disk.remove(backend.path);
    else this.machine.store.delete(store_volume);
  }

  /** To the mirror's target: a larger place, or back to the backup. */
  async #switch(served: ServedVolume, timeoutMs: number): Promise<void> {
    const { world } = this;
    const order: BackupOrder = {
      mode: this.#isFinishing ? "frozen" : world.pick(["frozen", "async", "sync"]),
      terms: this.#terms(),
      ...(world.chance(0.5) ? { failover_after_ms: world.between(200, 2000) } : {}),
    };
    await this.#told(`switch, backup ${order.mode}`, async () => {
      await served.switchOver(timeoutMs, order);
      this.switches++;
    });
  }

  /** One step at a time: nothing paused, the mirror switched to, every byte read, everything closed. */
  async #bringToRest(agent: Agent, served: ServedVolume): Promise<void> {
    const status = served.mirrorStatus();
    if (status?.state === "paused" || status?.state === "failed") {
      await this.#told("resume", () => served.pauseMirror(false));
    } else if (status) await this.#switch(served, 30_000);
    else {
      this.application.rest();
      if (!this.application.isIdle) return;
      await this.application.readAll(agent);
      this.isDone = true;
      agent.end();
    }
  }
}
