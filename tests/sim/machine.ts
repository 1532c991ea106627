/** The agent's machine: disk, kernel and its way to the store. It outlives processes, and loses its power. */
import { need } from "../../src/core/mod.ts";
import type { AllQuestions, Placement } from "../../src/dataplane/messages.ts";
import { VirtualDisk, type VirtualFile } from "./disk.ts";
import { VirtualKernel } from "./kernel.ts";
import { type Network, VirtualSocket } from "./network.ts";
import type { Answer, Store } from "./store.ts";
import type { World } from "./world.ts";

export class Machine {
  readonly disk: VirtualDisk;
  readonly kernel: VirtualKernel;
  /** How often it was switched on. */
  #boots = 1;

  constructor(readonly world: World, readonly network: Network, readonly store: Store) {
    this.disk = new VirtualDisk(world, "node");
    this.kernel = new VirtualKernel(this.disk, () => new VirtualSocket(network));
  }

  bootId(): string {
    return `boot-${this.#boots}`;
  }

  /** Its process must be dead already, by the same stroke. */
  powerLoss(): void {
    this.#boots++;
    this.disk.powerLoss();
  }

  /** Questions that the main thread would answer: what only a store can do. */
  ask(name: string, argument: unknown, done: Answer<unknown>): void {
    const { target } = argument as { target: Placement };
    if (name === "digests") {
      const { extents } = argument as AllQuestions["digests"]["argument"];
      return this.store.digests(target.store_volume, extents, done);
    }
    if (name === "storeEpoch") return this.store.epochOf(target.store_volume, done);
    const { epoch, claimant } = argument as AllQuestions["promote"]["argument"];
    // Embedded stores are on this machine: fencing there is a record's matter.
    if (target.backend.type === "file") this.world.after(this.disk.delay(), () => done(null));
    else this.store.promote(target.store_volume, { epoch, claimant }, done);
  }

  /** What a placement's bytes are now, as a reader would see them. */
  bytesOf(placement: Placement): Uint8Array<ArrayBuffer> {
    return this.fileOf(placement).cache;
  }

  fileOf({ backend, store_volume }: Placement): VirtualFile {
    const file = backend.type === "file"
      ? this.disk.find(backend.path)
      : this.store.volume(store_volume)?.file;
    return need(file, `the file of ${store_volume}`);
  }
}
