/** What a store durably knows about one volume: the JSON file beside its bytes. */
import { z } from "zod";
import { checkName, type Clock, formatSize, PsmaError, roundUp } from "../core/mod.ts";
import {
  type CreateStoreVolume,
  MAX_VOLUME_BYTES,
  MIN_VOLUME_BYTES,
  type RequestMirror,
  SIZE_MULTIPLE_BYTES,
} from "./store.ts";

const FORMAT = 1;
/** A volume that was made on its own begins here. */
const FIRST_EPOCH = 1;
const NAME_LENGTH_MAX = 64;

const Bytes = z.int().nonnegative();

const MirrorRequestRecord = z.strictObject({
  id: z.string(),
  state: z.enum(["granted", "promoted"]),
  /** The source's epoch when it asked. */
  epoch: z.int().nonnegative(),
  source: z.strictObject({
    agent: z.string(),
    volume: z.string(),
    size_bytes: Bytes,
    used_bytes: Bytes,
  }),
  predicted_need: z.strictObject({ bytes: Bytes, level: z.number(), at: z.string() }),
  deadline: z.string(),
});

const VolumeRecord = z.strictObject({
  format: z.literal(FORMAT),
  id: z.string(),
  size_bytes: Bytes,
  epoch: z.int().nonnegative(),
  created_at: z.string(),
  /** What made it, so that the same call again makes no second one; null when the caller gave no key. */
  idempotency: z.strictObject({ key: z.string(), fingerprint: z.string() }).nullable(),
  mirror: MirrorRequestRecord.nullable(),
  /** Who raised the epoch to what it is, where that one gave a name, and when; RFC 3339. */
  claim: z.strictObject({ claimant: z.string(), at: z.string() }).optional(),
});

export type MirrorRequestRecord = z.infer<typeof MirrorRequestRecord>;
export type VolumeRecord = z.infer<typeof VolumeRecord>;

export function encodeRecord(record: VolumeRecord): string {
  return JSON.stringify(record, null, 1) + "\n";
}

/** @throws {PsmaError} io/record when it is damaged or of a later format. */
export function decodeRecord(text: string, path: string): VolumeRecord {
  try {
    return VolumeRecord.parse(JSON.parse(text));
  } catch (cause) {
    throw new PsmaError("io/record", `Cannot read ${path}: it is not a volume record`, {
      hint: "Restore the file from a backup, or move its folder away.",
      cause,
    });
  }
}

/** The record of a volume made on its own. @throws {PsmaError} usage/name, usage/size */
export function newVolumeRecord(spec: CreateStoreVolume, created_at: string): VolumeRecord {
  const size_bytes = checkSize(spec.size_bytes);
  const { idempotency_key } = spec;
  return {
    format: FORMAT,
    id: checkName(spec.name),
    size_bytes,
    epoch: FIRST_EPOCH,
    created_at,
    idempotency: idempotency_key === undefined ? null : {
      key: idempotency_key,
      fingerprint: JSON.stringify(["volume", spec.name, size_bytes]),
    },
    mirror: null,
  };
}

/**
 * The record of a volume made for a mirror request. It begins at the source's own epoch, so that promoting
 * it to the next one is a step that fences.
 * @param suffix hexadecimal digits that tell mirrors of volumes of one name apart.
 */
export function newMirrorRecord(
  request: RequestMirror,
  suffix: string,
  created_at: string,
): VolumeRecord {
  const { source, predicted_need, deadline, epoch, idempotency_key } = request;
  const size_bytes = checkSize(request.size_bytes);
  const stem = checkName(source.volume).slice(0, NAME_LENGTH_MAX - suffix.length - 1);
  return {
    format: FORMAT,
    id: checkName(`${stem}-${suffix}`),
    size_bytes,
    epoch: checkEpoch(epoch),
    created_at,
    idempotency: {
      key: idempotency_key,
      fingerprint: JSON.stringify(["mirror", source.agent, source.volume, size_bytes, epoch]),
    },
    mirror: { id: `mr-${suffix}`, state: "granted", epoch, source, predicted_need, deadline },
  };
}

/**
 * The epoch that a writer names. A mirror is filled with the epoch that it will be promoted to: so the
 * promotion cuts any older writer, and not the one that goes on.
 */
export function writerEpoch(record: VolumeRecord): number {
  return record.mirror?.state === "granted"
    ? Math.max(record.epoch, record.mirror.epoch + 1)
    : record.epoch;
}

/** Who wants a volume for itself, by a name that is drawn for this one claim; and when. */
export interface Claim {
  readonly claimant: string;
  /** RFC 3339. */
  readonly at: string;
}

/** A claim that is made now; undefined where nobody gave a name. */
export function claimOf(claimant: string | undefined, clock: Clock): Claim | undefined {
  return claimant === undefined
    ? undefined
    : { claimant, at: new Date(clock.nowMs()).toISOString() };
}

/**
 * The record after a promotion. An epoch that somebody has claimed is that one's alone: the same claim again
 * is no error, another one for the same epoch is.
 * @throws {PsmaError} fenced/stale-epoch when the volume's epoch is higher, or another's.
 */
export function promoted(record: VolumeRecord, epoch: number, claim?: Claim): VolumeRecord {
  const { claim: held, ...rest } = record;
  const isAnothers = epoch === record.epoch &&
    (held ? held.claimant !== claim?.claimant : claim !== undefined);
  if (checkEpoch(epoch) < record.epoch || isAnothers) {
    throw new PsmaError(
      "fenced/stale-epoch",
      `Cannot promote ${record.id} to epoch ${epoch}: its epoch is ${record.epoch} already` +
        (held ? `, claimed at ${held.at}` : ""),
      { hint: "A newer owner has taken the volume over; this one must stop writing." },
    );
  }
  const done = record.mirror !== null && epoch > record.mirror.epoch;
  const holds = epoch === record.epoch ? held : claim;
  return {
    ...rest,
    epoch,
    mirror: done && record.mirror ? { ...record.mirror, state: "promoted" } : record.mirror,
    ...(holds ? { claim: holds } : {}),
  };
}

/** The record that an earlier call with this key made. @throws {PsmaError} state/idempotency-key when that call asked for something else. */
export function madeBefore(
  records: Iterable<VolumeRecord>,
  wanted: VolumeRecord,
): VolumeRecord | undefined {
  const { idempotency } = wanted;
  if (idempotency === null) return undefined;
  for (const record of records) {
    if (record.idempotency?.key !== idempotency.key) continue;
    if (record.idempotency.fingerprint === idempotency.fingerprint) return record;
    throw new PsmaError(
      "state/idempotency-key",
      `Cannot create ${wanted.id}: the idempotency key was used for another request`,
      { hint: "Use a new key for a new request." },
    );
  }
  return undefined;
}

/** @returns the size rounded up to a multiple of 4096. @throws {PsmaError} usage/size */
export function checkSize(size_bytes: number): number {
  const inRange = Number.isSafeInteger(size_bytes) && size_bytes >= 1 &&
    size_bytes <= MAX_VOLUME_BYTES;
  if (!inRange) {
    throw new PsmaError("usage/size", `Cannot use size: ${size_bytes} bytes is out of range`, {
      hint: `Use ${formatSize(MIN_VOLUME_BYTES)} to ${formatSize(MAX_VOLUME_BYTES)}.`,
    });
  }
  return roundUp(size_bytes, SIZE_MULTIPLE_BYTES);
}

/** @throws {PsmaError} usage/shrink */
export function checkGrows(record: VolumeRecord, size_bytes: number): void {
  if (size_bytes >= record.size_bytes) return;
  const to = formatSize(size_bytes), from = formatSize(record.size_bytes);
  throw new PsmaError("usage/shrink", `Cannot resize ${record.id} to ${to}: it has ${from}`, {
    hint: "Volumes only grow: make a smaller one and copy the data.",
  });
}

function checkEpoch(epoch: number): number {
  if (Number.isSafeInteger(epoch) && epoch >= 0) return epoch;
  throw new PsmaError("usage/epoch", `Cannot use epoch: ${epoch} is not a whole number`);
}
