/** The `psma` store: a client of `psma store serve`, or of any store that speaks its protocol. */
import { PsmaError } from "../core/mod.ts";
import type { Placement, TlsSpec } from "../dataplane/mod.ts";
import { HttpClient, type HttpClientOptions, Nothing } from "./http_client.ts";
import {
  type Capacity,
  type CreateStoreVolume,
  type DataStore,
  type Extent,
  MAX_DIGEST_EXTENTS,
  type MirrorGrant,
  type RequestMirror,
  type StoreVolume,
} from "./store.ts";
import { CapacityBody, DigestsBody, MirrorGrantBody, VolumeBody, VolumesBody } from "./wire.ts";

const KEY_BYTES = 16;

export class PsmaStore implements DataStore {
  readonly type = "psma";
  readonly digests_at = "store";
  readonly #http: HttpClient;
  readonly #options: HttpClientOptions;

  /** @param nbdTls for exports that are reached over TLS. @throws {PsmaError} config/store */
  constructor(
    readonly name: string,
    url: string,
    options: HttpClientOptions,
    readonly nbdTls: TlsSpec = {},
  ) {
    this.#http = new HttpClient(name, url, options);
    this.#options = options;
  }

  async capacity(): Promise<Capacity> {
    const answer = await this.#http.call({
      method: "GET",
      path: "/v1/capacity",
      answer: CapacityBody,
    });
    const { total_bytes, free_bytes, allocated_bytes } = answer;
    return { total_bytes, free_bytes, allocated_bytes };
  }

  async createVolume(spec: CreateStoreVolume): Promise<Placement> {
    const { name, size_bytes, idempotency_key = this.#options.rng.hex(KEY_BYTES) } = spec;
    const body = { name, size_bytes };
    return this.#placement(
      await this.#http.call({
        method: "POST",
        path: "/v1/volumes",
        body,
        idempotency_key,
        answer: VolumeBody,
      }),
    );
  }

  async list(): Promise<StoreVolume[]> {
    const { volumes } = await this.#http.call({
      method: "GET",
      path: "/v1/volumes",
      answer: VolumesBody,
    });
    return volumes.map((volume) => this.#storeVolume(volume));
  }

  async find(storeVolume: string): Promise<StoreVolume | undefined> {
    const call = { method: "GET", path: pathOf(storeVolume), answer: VolumeBody } as const;
    const volume = await unlessMissing(this.#http.call(call));
    return volume && this.#storeVolume(volume);
  }

  async resize(storeVolume: string, size_bytes: number): Promise<Placement> {
    const path = pathOf(storeVolume);
    const body = { size_bytes };
    return this.#placement(
      await this.#http.call({ method: "PATCH", path, body, answer: VolumeBody }),
    );
  }

  /** A mirror that is still being filled goes by cancelling its request: the store deletes no other way. */
  async delete(storeVolume: string): Promise<void> {
    const volume = await this.find(storeVolume);
    if (!volume) return;
    const request = volume.mirror_request;
    const path = request?.state === "granted"
      ? `/v1/mirror-requests/${encodeURIComponent(request.id)}`
      : pathOf(storeVolume);
    await unlessMissing(this.#http.call({ method: "DELETE", path, answer: Nothing }));
  }

  async requestMirror(request: RequestMirror): Promise<MirrorGrant> {
    const { idempotency_key, ...body } = request;
    const { id, state, volume } = await this.#http.call({
      method: "POST",
      path: "/v1/mirror-requests",
      body,
      idempotency_key,
      answer: MirrorGrantBody,
    });
    return { id, state, placement: this.#placement(volume) };
  }

  async digests(placement: Placement, extents: readonly Extent[]): Promise<string[]> {
    const path = `${pathOf(placement.store_volume)}/digests`;
    const all: string[] = [];
    for (let from = 0; from < extents.length; from += MAX_DIGEST_EXTENTS) {
      const some = extents.slice(from, from + MAX_DIGEST_EXTENTS);
      const body = { extents: some.map(({ at, length }) => ({ at, length })) };
      const { digests } = await this.#http.call({
        method: "POST",
        path,
        body,
        answer: DigestsBody,
      });
      if (digests.length !== some.length) {
        throw new PsmaError(
          "store/protocol",
          `Cannot use store ${this.name}: it sent ${digests.length} digests for ${some.length} extents`,
        );
      }
      all.push(...digests);
    }
    return all;
  }

  async promote(placement: Placement, epoch: number, claimant?: string): Promise<void> {
    const path = `${pathOf(placement.store_volume)}/promote`;
    const answer = await this.#http.call({
      method: "POST",
      path,
      body: { epoch, ...(claimant === undefined ? {} : { claimant }) },
      answer: VolumeBody,
    });
    if (answer.epoch >= epoch) return;
    throw new PsmaError(
      "store/protocol",
      `Cannot promote ${placement.store_volume} at ${this.name}: it stayed at epoch ${answer.epoch}`,
    );
  }

  close(): void {
    this.#http.close();
  }

  #storeVolume(volume: VolumeBody): StoreVolume {
    const { epoch, allocated_bytes, created_at, mirror_request } = volume;
    return {
      placement: this.#placement(volume),
      epoch,
      allocated_bytes,
      created_at,
      mirror_request,
    };
  }

  #placement({ id, size_bytes, uri }: VolumeBody): Placement {
    const tls = uri.startsWith("nbds") ? { tls: this.nbdTls } : {};
    const backend = { type: "nbd", uri, ...tls } as const;
    return { store: this.name, store_volume: id, size_bytes, backend };
  }
}

function pathOf(storeVolume: string): string {
  return `/v1/volumes/${encodeURIComponent(storeVolume)}`;
}

async function unlessMissing<T>(answer: Promise<T>): Promise<T | undefined> {
  try {
    return await answer;
  } catch (error) {
    if (error instanceof PsmaError && error.code.startsWith("not-found/")) return undefined;
    throw error;
  }
}
