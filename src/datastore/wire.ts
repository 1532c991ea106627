/**
 * The data store protocol's records, as both ends check them and as the OpenAPI document shows them.
 * Requests are strict: an unknown field is an error. Answers may gain fields: a client drops what it does
 * not know.
 */
import { z } from "@hono/zod-openapi";
import {
  MAX_DIGEST_EXTENT_BYTES,
  MAX_DIGEST_EXTENTS,
  MAX_VOLUME_BYTES,
  SIZE_MULTIPLE_BYTES,
} from "./store.ts";

/** What a store server can do; a client refuses a store without what it needs. */
export const PROTOCOL_VERSION = 1;
export const MAX_IDEMPOTENCY_KEY_LENGTH = 128;

const Bytes = z.int().nonnegative();
const Epoch = z.int().nonnegative();
const Time = z.iso.datetime({ offset: true });
const Name = z.string().max(64).openapi({
  description:
    "1 to 64 of a-z 0-9 . _ -, beginning and ending with a letter or digit, without `..`.",
  example: "data",
});
const Size = z.int().positive().max(MAX_VOLUME_BYTES).openapi({
  description: `Rounded up to a multiple of ${SIZE_MULTIPLE_BYTES}.`,
  example: 10_737_418_240,
});

export const ProblemBody = z.object({
  code: z.string().openapi({ example: "store/full" }),
  title: z.string(),
  status: z.int(),
  detail: z.string(),
  hint: z.string().optional(),
}).openapi("Problem");

export const CreateVolumeBody = z.strictObject({ name: Name, size_bytes: Size })
  .openapi("CreateVolume");

export const ResizeVolumeBody = z.strictObject({ size_bytes: Size }).openapi("ResizeVolume");

const MirrorRequestState = z.enum(["granted", "promoted"]).openapi("MirrorRequestState", {
  description: "granted: made, to be filled and promoted; promoted: a volume in its own right.",
});

export const VolumeBody = z.object({
  id: z.string(),
  size_bytes: Bytes,
  allocated_bytes: Bytes.openapi({ description: "What it takes up on disk." }),
  epoch: Epoch.openapi({ description: "A writer that names a lower one is refused." }),
  uri: z.string().openapi({
    description:
      "NBD URI for a writer: the export name ends in `@` and the epoch to write with. `nbds` for NBD over TLS.",
    example: "nbd://127.0.0.1:10809/data@1",
  }),
  created_at: Time,
  mirror_request: z.object({ id: z.string(), state: MirrorRequestState }).nullable(),
}).openapi("Volume");

export const VolumesBody = z.object({ volumes: z.array(VolumeBody) }).openapi("Volumes");

export const CapacityBody = z.object({
  total_bytes: Bytes,
  free_bytes: Bytes.openapi({ description: "What may still be promised." }),
  allocated_bytes: Bytes,
  promised_bytes: Bytes.openapi({ description: "The sum of all volumes' sizes." }),
  capacity_bytes: Bytes.nullable().openapi({
    description: "The limit of what is promised; null for none: sizes are thin.",
  }),
}).openapi("Capacity");

export const DigestsRequest = z.strictObject({
  extents: z.array(z.strictObject({
    at: Bytes,
    length: z.int().positive().max(MAX_DIGEST_EXTENT_BYTES),
  })).max(MAX_DIGEST_EXTENTS),
}).openapi("DigestsRequest");

export const DigestsBody = z.object({
  algorithm: z.literal("xxh64"),
  digests: z.array(z.string()).openapi({
    description: "Of what is persisted now; one per extent, in order; lower-case hexadecimal.",
  }),
}).openapi("Digests");

export const PromoteBody = z.strictObject({
  epoch: Epoch,
  claimant: z.string().min(1).max(64).optional().openapi({
    description: "Claims the epoch for one writer: another claimant of the same epoch is refused.",
  }),
}).openapi("Promote");

const Source = z.strictObject({
  agent: z.string().min(1).max(128),
  volume: Name,
  size_bytes: Bytes,
  used_bytes: Bytes,
}).openapi("MirrorSource");

const PredictedNeed = z.strictObject({
  bytes: Bytes,
  level: z.number().gt(0).lt(1).openapi({ description: "Quantile level of the forecast." }),
  at: Time,
}).openapi("PredictedNeed");

export const MirrorRequestBody = z.strictObject({
  source: Source,
  predicted_need: PredictedNeed,
  size_bytes: Size,
  deadline: Time.openapi({ description: "When the mirror should be complete." }),
  epoch: Epoch.openapi({
    description: "The source's epoch now; the mirror is promoted to the next.",
  }),
  mode: z.enum(["push"]).default("push").openapi({
    description: "push: the client writes the bytes to the export.",
  }),
}).openapi("MirrorRequest");

export const MirrorGrantBody = z.object({
  id: z.string(),
  state: MirrorRequestState,
  mode: z.enum(["push"]),
  volume: VolumeBody,
  source: Source,
  predicted_need: PredictedNeed,
  deadline: Time,
  epoch: Epoch,
}).openapi("MirrorGrant");

export type VolumeBody = z.infer<typeof VolumeBody>;
export type CapacityBody = z.infer<typeof CapacityBody>;
export type DigestsBody = z.infer<typeof DigestsBody>;
export type MirrorGrantBody = z.infer<typeof MirrorGrantBody>;
