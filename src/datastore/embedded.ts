/**
 * The embedded store: thin files in a directory of this machine, for volumes that the agent's own data plane
 * opens. Sizes may be promised beyond the disk (thin); a new volume is refused when the disk is nearly full.
 *
 * Fencing: one machine, one agent. The epoch is durable in the volume's record and a lower one is refused.
 */
import { resolve } from "node:path";
import { PsmaError } from "../core/mod.ts";
import type { Placement } from "../dataplane/mod.ts";
import type {
  Capacity,
  CreateStoreVolume,
  DataStore,
  MirrorGrant,
  RequestMirror,
  StoreVolume,
} from "./store.ts";
import { KeyedQueue } from "./keyed_queue.ts";
import {
  existsAlready,
  type FolderOptions,
  noSuchVolume,
  VolumeFolders,
} from "./volume_folders.ts";
import {
  checkGrows,
  checkSize,
  claimOf,
  madeBefore,
  newMirrorRecord,
  newVolumeRecord,
  promoted,
  type VolumeRecord,
} from "./volume_record.ts";
import { checkRoomFor } from "./room.ts";

/** Long enough for another process's create or delete, short enough for a person to wait. */
const LOCK_WITHIN_MS = 5000;
const SUFFIX_BYTES = 4;

export class EmbeddedStore implements DataStore {
  readonly type = "embedded";
  readonly digests_at = "data-plane";
  readonly #folders: VolumeFolders;
  readonly #options: FolderOptions;
  readonly #queue = new KeyedQueue();

  constructor(readonly name: string, path: string, options: FolderOptions) {
    // Placements outlive this process and its working directory.
    this.#folders = new VolumeFolders(resolve(path), options);
    this.#options = options;
  }

  capacity(): Promise<Capacity> {
    return this.#inTurn(async () => {
      const { total_bytes, free_bytes } = await this.#folders.space();
      let allocated_bytes = 0;
      for (const { id } of await this.#folders.list()) {
        allocated_bytes += await this.#folders.allocatedBytes(id);
      }
      return { total_bytes, free_bytes, allocated_bytes };
    });
  }

  async createVolume(spec: CreateStoreVolume): Promise<Placement> {
    const wanted = newVolumeRecord(spec, this.#now());
    return this.#placement(await this.#create(wanted));
  }

  list(): Promise<StoreVolume[]> {
    return this.#inTurn(async () => {
      const records = await this.#folders.list();
      return await Promise.all(records.map((record) => this.#view(record)));
    });
  }

  find(storeVolume: string): Promise<StoreVolume | undefined> {
    return this.#inTurn(async () => {
      const record = await this.#find(storeVolume);
      return record && await this.#view(record);
    });
  }

  resize(storeVolume: string, size_bytes: number): Promise<Placement> {
    return this.#inTurn(async () => {
      const record = await this.#need(storeVolume, "resize");
      const size = checkSize(size_bytes);
      checkGrows(record, size);
      await this.#folders.extend(record.id, size);
      const grown = { ...record, size_bytes: size };
      await this.#folders.update(grown);
      return this.#placement(grown);
    });
  }

  delete(storeVolume: string): Promise<void> {
    return this.#inTurn(async () => {
      const record = await this.#find(storeVolume);
      if (record) await this.#folders.remove(record.id);
    });
  }

  async requestMirror(request: RequestMirror): Promise<MirrorGrant> {
    const wanted = newMirrorRecord(request, this.#options.rng.hex(SUFFIX_BYTES), this.#now());
    const made = await this.#create(wanted);
    const { id, state } = made.mirror ?? { id: made.id, state: "granted" };
    return { id, placement: this.#placement(made), state };
  }

  digests(placement: Placement): Promise<string[]> {
    return Promise.reject(
      new PsmaError(
        "state/digests-in-data-plane",
        `Cannot digest ${placement.store_volume} at ${this.name}: its bytes are the data plane's own`,
      ),
    );
  }

  promote(placement: Placement, epoch: number, claimant?: string): Promise<void> {
    return this.#inTurn(async () => {
      const record = await this.#need(placement.store_volume, "promote");
      await this.#folders.update(promoted(record, epoch, claimOf(claimant, this.#options.clock)));
    });
  }

  close(): void {}

  #create(wanted: VolumeRecord): Promise<VolumeRecord> {
    return this.#inTurn(async () => {
      const records = await this.#folders.list();
      const before = madeBefore(records, wanted);
      if (before) return before;
      if (records.some(({ id }) => id === wanted.id)) throw existsAlready(wanted.id);
      const { free_bytes } = await this.#folders.space();
      checkRoomFor(wanted, free_bytes);
      await this.#folders.create(wanted);
      return wanted;
    });
  }

  /** Alone in this process and among processes; leftovers seen under the lock are nobody's. */
  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    return this.#queue.run("store", async () => {
      using _lock = await this.#folders.lock(LOCK_WITHIN_MS);
      await this.#folders.sweep();
      return await work();
    });
  }

  async #need(id: string, verb: string): Promise<VolumeRecord> {
    const record = await this.#find(id);
    if (!record) throw noSuchVolume(id, verb);
    return record;
  }

  /** Among what is there: an id that a caller made up never becomes a path. */
  async #find(id: string): Promise<VolumeRecord | undefined> {
    return (await this.#folders.list()).find((record) => record.id === id);
  }

  async #view(record: VolumeRecord): Promise<StoreVolume> {
    const { id, epoch, created_at, mirror } = record;
    return {
      placement: this.#placement(record),
      epoch,
      allocated_bytes: await this.#folders.allocatedBytes(id),
      created_at,
      mirror_request: mirror && { id: mirror.id, state: mirror.state },
    };
  }

  #placement({ id, size_bytes }: VolumeRecord): Placement {
    const backend = { type: "file", path: this.#folders.dataPath(id) } as const;
    return { store: this.name, store_volume: id, size_bytes, backend };
  }

  #now(): string {
    return new Date(this.#options.clock.nowMs()).toISOString();
  }
}
