/**
 * A simulated network data store: volumes on a virtual disk, served by NBD and fenced by epochs, and the two
 * questions of its control interface, digests and promotion. It can crash, lose its power, be slow, be full,
 * fail and lie.
 */
import { PsmaError } from "../../src/core/mod.ts";
import type { Digest } from "../../src/mirror/mod.ts";
import { VirtualDisk, type VirtualFile } from "./disk.ts";
import type { Network } from "./network.ts";
import { insist, StoreSession } from "./store_session.ts";
import type { World } from "./world.ts";

export const STORE_URI = "nbd://10.0.0.2:10809";

export interface StoreVolume {
  readonly name: string;
  readonly file: VirtualFile;
  readonly sizeBytes: number;
  /** The lowest epoch that may write; what a restart begins with. */
  epoch: number;
  durableEpoch: number;
  /** Who claimed it; undefined where nobody gave a name. */
  claimant: string | undefined;
  readonly sessions: Set<StoreSession>;
  /** Requests of sessions that have ended and are still being done. */
  draining: number;
}

interface Extent {
  readonly at: number;
  readonly length: number;
}

/** Takes what a question was answered with. */
export type Answer<T> = (outcome: T | PsmaError) => void;

/** A request that is being done. */
export interface StoreWork {
  cancelled: boolean;
  readonly tear: (() => void) | undefined;
}

export class Store {
  readonly disk: VirtualDisk;
  readonly #volumes = new Map<string, StoreVolume>();
  readonly #work = new Set<StoreWork>();
  #isUp = false;

  constructor(readonly world: World, readonly network: Network, readonly digest: Digest) {
    this.disk = new VirtualDisk(world, "store");
    this.start();
  }

  get isUp(): boolean {
    return this.#isUp;
  }

  volume(name: string): StoreVolume | undefined {
    return this.#volumes.get(name);
  }

  /** Makes a volume that writers enter with `epoch` or a later one. */
  make(name: string, bytes: Uint8Array<ArrayBuffer>, epoch: number): void {
    const file = this.disk.provide(`/store/${name}`, bytes);
    this.#volumes.set(name, {
      name,
      file,
      sizeBytes: bytes.length,
      epoch,
      durableEpoch: epoch,
      claimant: undefined,
      sessions: new Set(),
      draining: 0,
    });
  }

  delete(name: string): void {
    this.disk.remove(`/store/${name}`);
    this.#volumes.delete(name);
  }

  start(): void {
    if (this.#isUp) return;
    this.#isUp = true;
    this.network.serverIsOn = true;
    this.network.accept = (link) => new StoreSession(this, link);
    for (const volume of this.#volumes.values()) volume.epoch = volume.durableEpoch;
  }

  /** The process is killed: its page cache stays, its connections are reset. */
  crash(): void {
    if (!this.#isUp) return;
    this.#stop();
    this.network.serverGone(false);
  }

  powerLoss(): void {
    if (!this.#isUp) return;
    this.#stop();
    this.network.serverIsOn = false;
    this.network.serverGone(true);
    this.disk.powerLoss();
  }

  #stop() {
    this.#isUp = false;
    this.network.accept = undefined;
    for (const work of this.#work) {
      work.cancelled = true;
      work.tear?.();
    }
    this.#work.clear();
    for (const volume of this.#volumes.values()) {
      for (const session of volume.sessions) session.forget();
      volume.sessions.clear();
      volume.draining = 0;
    }
  }

  /** Does something after what it takes. @param tear what a crash may leave of it. */
  work(run: () => void, tear?: () => void): void {
    const work: StoreWork = { cancelled: false, tear };
    this.#work.add(work);
    this.world.after(this.disk.delay(), () => {
      if (work.cancelled) return;
      this.#work.delete(work);
      run();
    });
  }

  // ---- Control ----

  /** Digests of what is persisted, extent by extent. */
  digests(name: string, extents: readonly Extent[], done: Answer<readonly string[]>): void {
    this.#ask(done, (answer) => {
      const digests: string[] = [];
      const next = () => {
        const extent = extents[digests.length], volume = this.#volumes.get(name);
        if (!volume) return answer(notFound(name));
        if (volume.draining > 0) return this.work(next);
        if (!extent) return answer(digests);
        const bytes = new Uint8Array(extent.length);
        const read = (from: number) =>
          this.disk.read(volume.file, extent.at + from, bytes.subarray(from));
        if (insist(extent.length, read) !== 0) {
          return answer(new PsmaError("io/read", `Cannot read ${name}`));
        }
        digests.push(this.digest(bytes));
        this.work(next);
      };
      this.work(next);
    });
  }

  epochOf(name: string, done: Answer<number>): void {
    this.#ask(done, (answer) => {
      this.work(() => {
        const volume = this.#volumes.get(name);
        answer(volume ? volume.durableEpoch : notFound(name));
      });
    });
  }

  /** Raises the epoch, durably, and cuts every writer below it; answers when they have drained. */
  promote(
    name: string,
    { epoch, claimant }: { epoch: number; claimant: string },
    done: Answer<null>,
  ): void {
    this.#ask(done, (answer) => {
      this.work(() => {
        const volume = this.#volumes.get(name);
        if (!volume) return answer(notFound(name));
        const isAnothers = epoch === volume.durableEpoch && claimant !== volume.claimant;
        if (epoch < volume.durableEpoch || isAnothers) {
          const reason = `its epoch is ${volume.durableEpoch}`;
          return answer(new PsmaError("fenced/stale-epoch", `Cannot promote ${name}: ${reason}`));
        }
        volume.durableEpoch = epoch;
        volume.claimant = claimant;
        volume.epoch = Math.max(volume.epoch, epoch);
        for (const session of [...volume.sessions]) if (session.epoch < epoch) session.cut();
        const drain = () => volume.draining > 0 ? this.work(drain) : answer(null);
        drain();
      });
    });
  }

  /** A question goes there and its answer comes back, both by the network; a store that dies leaves it open. */
  #ask<T>(done: Answer<T>, work: (answer: Answer<T>) => void): void {
    const { network } = this;
    const lost = new PsmaError("store/unreachable", "Cannot reach the store");
    network.later(() => {
      if (!this.#isUp || network.isCut) return network.later(() => done(lost));
      work((outcome) => network.later(() => done(network.isCut ? lost : outcome)));
    });
  }
}

function notFound(name: string): PsmaError {
  return new PsmaError("not-found/store-volume", `Cannot find ${name}`);
}
