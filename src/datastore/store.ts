/**
 * A data store: what makes, lists, grows, fences and deletes the places where volumes' bytes live.
 *
 * Not promised: that a placement can be reached. A store says where bytes are; the data plane goes there.
 */
import type { Placement } from "../dataplane/mod.ts";

/** Sizes are rounded up to this, so that every frontend and file system can use all of a volume. */
export const SIZE_MULTIPLE_BYTES = 4096;
/** 1 PiB: beyond it a size is a typing mistake. */
export const MAX_VOLUME_BYTES: number = 2 ** 50;
export const MIN_VOLUME_BYTES: number = SIZE_MULTIPLE_BYTES;
/** Digests asked for in one call, and the longest extent of each. */
export const MAX_DIGEST_EXTENTS = 1024;
export const MAX_DIGEST_EXTENT_BYTES = 1_048_576;

export interface Extent {
  readonly at: number;
  readonly length: number;
}

export interface Capacity {
  /** Null when the store does not say. */
  readonly total_bytes: number | null;
  readonly free_bytes: number | null;
  /** What its volumes take up now: less than the sum of their sizes, for they are thin. */
  readonly allocated_bytes: number;
}

export interface CreateStoreVolume {
  readonly name: string;
  /** Rounded up to a multiple of 4096. */
  readonly size_bytes: number;
  /** Two calls with the same key make one volume. */
  readonly idempotency_key?: string;
}

/** `granted`: made, and waiting to be filled and promoted. `promoted`: a volume in its own right. */
export type MirrorRequestState = "granted" | "promoted";

export interface StoreVolume {
  readonly placement: Placement;
  /** A writer with a lower one is refused. */
  readonly epoch: number;
  readonly allocated_bytes: number;
  /** RFC 3339. */
  readonly created_at: string;
  /** The mirror request that it was made for; null when it was made on its own. */
  readonly mirror_request: { readonly id: string; readonly state: MirrorRequestState } | null;
}

/** What is to be mirrored. */
export interface MirrorSource {
  readonly agent: string;
  readonly volume: string;
  readonly size_bytes: number;
  readonly used_bytes: number;
}

/** The forecast that asks for room: `bytes` at quantile `level` at the time `at` (RFC 3339). */
export interface PredictedNeed {
  readonly bytes: number;
  readonly level: number;
  readonly at: string;
}

export interface RequestMirror {
  readonly source: MirrorSource;
  readonly predicted_need: PredictedNeed;
  readonly size_bytes: number;
  /** When the mirror should be complete, RFC 3339. */
  readonly deadline: string;
  /** The source volume's epoch now; the mirror is written, and later promoted, with the next one. */
  readonly epoch: number;
  readonly idempotency_key: string;
}

export interface MirrorGrant {
  readonly id: string;
  readonly placement: Placement;
  readonly state: MirrorRequestState;
}

/**
 * One data store of the configuration. Every method may throw, besides what it names:
 * store/unreachable, timeout/store, auth/token, state/locked, io/store.
 */
export interface DataStore {
  /** As in the configuration. */
  readonly name: string;
  readonly type: "embedded" | "psma";
  /**
   * Who reads back and digests what was persisted: the store beside its own disks, or, where the
   * volume is a file of the data plane's own, the data plane itself. `digests` is for the former only.
   */
  readonly digests_at: "store" | "data-plane";
  capacity(): Promise<Capacity>;
  /** @throws {PsmaError} usage/name, usage/size, state/exists, state/idempotency-key, store/full, store/quota */
  createVolume(spec: CreateStoreVolume): Promise<Placement>;
  /** Sorted by id. */
  list(): Promise<StoreVolume[]>;
  find(storeVolume: string): Promise<StoreVolume | undefined>;
  /** Grows; the same size again is no error. @throws {PsmaError} usage/shrink, not-found/store-volume, store/full */
  resize(storeVolume: string, size_bytes: number): Promise<Placement>;
  /** Deletes the bytes, and the mirror request behind them. One that is not there is no error. */
  delete(storeVolume: string): Promise<void>;
  /** @throws {PsmaError} as createVolume; store/full also when what is used now would not fit. */
  requestMirror(request: RequestMirror): Promise<MirrorGrant>;
  /** Digests of what is persisted now, one per extent, in order: lower-case hexadecimal. */
  digests(placement: Placement, extents: readonly Extent[]): Promise<string[]>;
  /**
   * Durably fences every writer with a lower epoch; the same epoch again is no error, unless one has claimed it
   * and this is not the same claimant.
   * @throws {PsmaError} fenced/stale-epoch when the volume's is higher already, or another's.
   */
  promote(placement: Placement, epoch: number, claimant?: string): Promise<void>;
  /** Gives connections back. */
  close(): void;
}
