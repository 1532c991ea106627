/**
 * All volumes of one store server: what is promised, what is served, who may write.
 *
 * Faults: killed at any moment, a start brings back every volume that was answered for, with its id, size
 * and epoch, and none that was half made. Changes of one volume happen in turn; room is reserved before the
 * first wait, so that two callers never share the last gigabyte.
 */
import { type Clock, type Log, PsmaError, type Rng, toPsmaError } from "../../core/mod.ts";
import type { DataPlane, NbdServerStatistics } from "../../dataplane/mod.ts";
import { checkPromise, checkRoomFor } from "../room.ts";
import type { CreateStoreVolume, Extent, RequestMirror } from "../store.ts";
import { KeyedQueue } from "../keyed_queue.ts";
import { existsAlready, noSuchVolume, type Space, type VolumeFolders } from "../volume_folders.ts";
import {
  checkGrows,
  checkSize,
  claimOf,
  madeBefore,
  newMirrorRecord,
  newVolumeRecord,
  promoted,
  type VolumeRecord,
  writerEpoch,
} from "../volume_record.ts";
import type { CapacityBody, DigestsBody, MirrorGrantBody, VolumeBody } from "../wire.ts";
import { ServedVolumes } from "./served_volumes.ts";

/** Each open volume costs the data plane memory and a descriptor. */
const MAX_VOLUMES = 4096;
const SUFFIX_BYTES = 4;

export interface CatalogueOptions {
  readonly folders: readonly VolumeFolders[];
  readonly plane: DataPlane;
  readonly capacity_bytes?: number | undefined;
  readonly log: Log;
  readonly clock: Clock;
  readonly rng: Rng;
}

interface Entry {
  readonly record: VolumeRecord;
  readonly folders: VolumeFolders;
  /** NBD URI without an epoch. */
  readonly uri: string;
}

export class Catalogue {
  readonly #entries = new Map<string, Entry>();
  /** Bytes by id: asked for and admitted, but not yet in an entry. */
  readonly #reserved = new Map<string, number>();
  readonly #queue = new KeyedQueue();
  readonly #served: ServedVolumes;
  readonly #options: CatalogueOptions;
  #unserved = 0;

  private constructor(options: CatalogueOptions) {
    this.#options = options;
    this.#served = new ServedVolumes(options.plane);
  }

  /**
   * Serves all volumes of the folders again. One that cannot be served is logged and left alone, with its
   * bytes and its name: the others must not wait for it.
   * @throws {PsmaError} state/exists when two folders hold one id; internal/data-plane
   */
  static async open(options: CatalogueOptions): Promise<Catalogue> {
    const catalogue = new Catalogue(options);
    for (const folders of options.folders) {
      for (const record of await folders.list()) {
        if (catalogue.#entries.has(record.id)) throw existsAlready(record.id);
        await catalogue.#serveAgain(record, folders);
      }
    }
    return catalogue;
  }

  /** Volumes that are there and could not be served at the start. */
  get unserved(): number {
    return this.#unserved;
  }

  /** What the NBD server has seen. @throws {PsmaError} internal/data-plane */
  async nbdStatistics(): Promise<NbdServerStatistics | null> {
    return await this.#served.nbdStatistics();
  }

  get promised_bytes(): number {
    let sum = 0;
    for (const { record } of this.#entries.values()) sum += record.size_bytes;
    for (const bytes of this.#reserved.values()) sum += bytes;
    return sum;
  }

  async capacity(): Promise<CapacityBody> {
    const { folders, capacity_bytes = null } = this.#options;
    const disks = new Map<number, Space>();
    for (const one of folders) {
      const space = await one.space();
      disks.set(space.device, space);
    }
    let disk_bytes = 0, disk_free_bytes = 0, allocated_bytes = 0;
    for (const { total_bytes, free_bytes } of disks.values()) {
      disk_bytes += total_bytes;
      disk_free_bytes += free_bytes;
    }
    for (const { record, folders } of this.#entries.values()) {
      allocated_bytes += await folders.allocatedBytes(record.id);
    }
    const { promised_bytes } = this;
    const left_bytes = (capacity_bytes ?? Infinity) - promised_bytes;
    return {
      total_bytes: capacity_bytes ?? disk_bytes,
      free_bytes: Math.max(0, Math.min(disk_free_bytes, left_bytes)),
      allocated_bytes,
      promised_bytes,
      capacity_bytes,
    };
  }

  /** Sorted by id. */
  async list(): Promise<VolumeBody[]> {
    const entries = [...this.#entries.values()];
    const volumes = await Promise.all(entries.map((entry) => this.#view(entry)));
    return volumes.sort((a, b) => a.id < b.id ? -1 : 1);
  }

  /** @throws {PsmaError} not-found/store-volume */
  async volume(id: string): Promise<VolumeBody> {
    return await this.#view(this.#need(id, "show"));
  }

  /** @throws {PsmaError} usage/name, state/exists, state/idempotency-key, store/full, store/quota */
  async createVolume(spec: CreateStoreVolume): Promise<VolumeBody> {
    return await this.#view(await this.#create(newVolumeRecord(spec, this.#now())));
  }

  /** @throws {PsmaError} as createVolume; store/full also when what the source uses would not fit. */
  async requestMirror(request: RequestMirror): Promise<MirrorGrantBody> {
    const wanted = newMirrorRecord(request, this.#options.rng.hex(SUFFIX_BYTES), this.#now());
    return await this.#grant(await this.#create(wanted));
  }

  /** @throws {PsmaError} not-found/mirror-request */
  async mirrorRequest(id: string): Promise<MirrorGrantBody> {
    return await this.#grant(this.#needMirror(id, "show"));
  }

  /**
   * Forgets the request and deletes the volume that was made for it.
   * @throws {PsmaError} not-found/mirror-request; state/promoted when it is a volume in its own right by now.
   */
  async cancelMirror(id: string): Promise<void> {
    const { record } = this.#needMirror(id, "cancel");
    await this.#queue.run(record.id, async () => {
      const entry = this.#needMirror(id, "cancel");
      if (entry.record.mirror?.state === "promoted") {
        throw new PsmaError("state/promoted", `Cannot cancel ${id}: its volume has been promoted`, {
          hint: `Delete the volume ${entry.record.id} when its data is not needed.`,
        });
      }
      await this.#remove(entry);
    });
  }

  /**
   * Deletes the volume. Whoever has it open is cut off: the caller says that nobody needs it. A mirror that
   * is being filled is not deleted this way, because its agent counts on it.
   * @throws {PsmaError} not-found/store-volume, state/mirror-active
   */
  deleteVolume(id: string): Promise<void> {
    return this.#queue.run(id, async () => {
      const entry = this.#need(id, "delete");
      const { mirror } = entry.record;
      if (mirror?.state === "granted") {
        throw new PsmaError(
          "state/mirror-active",
          `Cannot delete ${id}: it is a mirror being filled`,
          {
            hint: `Cancel the mirror request ${mirror.id} instead.`,
          },
        );
      }
      await this.#remove(entry);
    });
  }

  /** Grows. @throws {PsmaError} not-found/store-volume, usage/shrink, store/full */
  resize(id: string, size_bytes: number): Promise<VolumeBody> {
    return this.#queue.run(id, async () => {
      const { record, folders, uri } = this.#need(id, "resize");
      const size = checkSize(size_bytes);
      checkGrows(record, size);
      const entry = { record: { ...record, size_bytes: size }, folders, uri };
      await this.#reserving(id, size - record.size_bytes, async () => {
        await this.#served.grow(id, size);
        await folders.update(entry.record);
        this.#enter(entry);
      });
      return await this.#view(entry);
    });
  }

  /**
   * Raises the epoch and cuts every session below it. The order is what makes it a fence:
   * 1. The record, durably. A server killed after this starts with the new epoch, so an old writer that
   *    comes back is refused. Cutting first would let it in again after a crash.
   * 2. The data plane: it refuses new sessions below the epoch, cuts those that are open, and waits until
   *    none of their writes is under way. Answering before that would let an old write land after the
   *    caller has read, or written, the same place.
   * 3. The answer. From here on nothing older writes.
   * A failure between 1 and 2 is answered as an error: the epoch is raised, and asking again does the rest.
   * @throws {PsmaError} not-found/store-volume, fenced/stale-epoch
   */
  promote(id: string, epoch: number, claimant?: string): Promise<VolumeBody> {
    return this.#queue.run(id, async () => {
      const { record, folders, uri } = this.#need(id, "promote");
      const claim = claimOf(claimant, this.#options.clock);
      const entry = { record: promoted(record, epoch, claim), folders, uri };
      if (epoch > record.epoch) await folders.update(entry.record);
      this.#entries.set(id, entry);
      await this.#served.promote(id, epoch);
      this.#options.log.info("promoted", { volume: id, epoch });
      return await this.#view(entry);
    });
  }

  /** Digests of what is persisted now. @throws {PsmaError} not-found/store-volume, usage/extent */
  async digests(id: string, extents: readonly Extent[]): Promise<DigestsBody> {
    const { record } = this.#need(id, "digest");
    const outside = extents.find(({ at, length }) => at + length > record.size_bytes);
    if (outside) {
      throw new PsmaError(
        "usage/extent",
        `Cannot digest ${id}: ${outside.length} bytes at ${outside.at} end beyond its size ${record.size_bytes}`,
      );
    }
    return await this.#served.digests(id, extents);
  }

  #create(wanted: VolumeRecord): Promise<Entry> {
    const { idempotency } = wanted;
    const turn = idempotency === null ? wanted.id : `key ${idempotency.key}`;
    return this.#queue.run(turn, async () => {
      const before = madeBefore(this.#records(), wanted);
      if (before) return this.#need(before.id, "create");
      return await this.#make(wanted);
    });
  }

  async #make(wanted: VolumeRecord): Promise<Entry> {
    const { id } = wanted;
    if (this.#entries.has(id) || this.#reserved.has(id)) throw existsAlready(id);
    if (this.#entries.size + this.#reserved.size >= MAX_VOLUMES) {
      throw new PsmaError(
        "store/quota",
        `Cannot create ${id}: the store has ${MAX_VOLUMES} volumes`,
      );
    }
    return await this.#reserving(id, wanted.size_bytes, async () => {
      const { folders, free_bytes } = await this.#roomiest();
      checkRoomFor(wanted, free_bytes);
      await folders.create(wanted);
      try {
        return await this.#serve(wanted, folders);
      } catch (error) {
        await this.#served.close(id).catch(() => {});
        await folders.remove(id);
        throw error;
      }
    });
  }

  async #reserving<T>(id: string, bytes: number, work: () => Promise<T>): Promise<T> {
    checkPromise(id, bytes, this.promised_bytes, this.#options.capacity_bytes);
    this.#reserved.set(id, bytes);
    try {
      return await work();
    } finally {
      this.#reserved.delete(id);
    }
  }

  async #serveAgain(record: VolumeRecord, folders: VolumeFolders) {
    try {
      await this.#serve(record, folders);
    } catch (error) {
      const { code, message } = toPsmaError(error);
      if (code === "internal/data-plane") throw error;
      this.#unserved++;
      await this.#served.close(record.id);
      this.#options.log.error("left a volume unserved", {
        volume: record.id,
        code,
        reason: message,
      });
    }
  }

  async #serve(record: VolumeRecord, folders: VolumeFolders): Promise<Entry> {
    const { uri, size_bytes } = await this.#served.open(record, folders);
    // A crash in the middle of a resize: the data plane had grown it, the record had not been told.
    const grown = { ...record, size_bytes };
    if (size_bytes > record.size_bytes) await folders.update(grown);
    const entry = { record: grown, folders, uri };
    this.#enter(entry);
    return entry;
  }

  /** What was reserved is now in the entry: never counted twice, never missing. */
  #enter(entry: Entry) {
    this.#reserved.delete(entry.record.id);
    this.#entries.set(entry.record.id, entry);
  }

  /** Gone for good once its folder has lost its name; until then a failure leaves it listed. */
  async #remove({ record, folders }: Entry) {
    await this.#served.close(record.id);
    await folders.remove(record.id);
    this.#entries.delete(record.id);
    this.#options.log.info("deleted", { volume: record.id });
  }

  async #roomiest(): Promise<{ folders: VolumeFolders; free_bytes: number }> {
    const rooms = await Promise.all(this.#options.folders.map(async (folders) => {
      const { free_bytes } = await folders.space();
      return { folders, free_bytes };
    }));
    return rooms.reduce((best, room) => room.free_bytes > best.free_bytes ? room : best);
  }

  *#records(): Iterable<VolumeRecord> {
    for (const { record } of this.#entries.values()) yield record;
  }

  #need(id: string, verb: string): Entry {
    const entry = this.#entries.get(id);
    if (!entry) throw noSuchVolume(id, verb);
    return entry;
  }

  #needMirror(id: string, verb: string): Entry {
    for (const entry of this.#entries.values()) if (entry.record.mirror?.id === id) return entry;
    throw new PsmaError(
      "not-found/mirror-request",
      `Cannot ${verb} ${id}: the store has no such mirror request`,
    );
  }

  async #view({ record, folders, uri }: Entry): Promise<VolumeBody> {
    const { id, size_bytes, epoch, created_at, mirror } = record;
    return {
      id,
      size_bytes,
      allocated_bytes: await folders.allocatedBytes(id),
      epoch,
      uri: withEpoch(uri, writerEpoch(record)),
      created_at,
      mirror_request: mirror && { id: mirror.id, state: mirror.state },
    };
  }

  async #grant(entry: Entry): Promise<MirrorGrantBody> {
    const { mirror } = entry.record;
    if (!mirror) throw existsAlready(entry.record.id);
    return { ...mirror, mode: "push", volume: await this.#view(entry) };
  }

  #now(): string {
    return new Date(this.#options.clock.nowMs()).toISOString();
  }
}

/** `nbd+unix:///data?socket=/s` and 3 → `nbd+unix:///data@3?socket=/s`. */
function withEpoch(uri: string, epoch: number): string {
  const [place = "", query] = uri.split("?", 2);
  return `${place}@${epoch}${query === undefined ? "" : `?${query}`}`;
}
