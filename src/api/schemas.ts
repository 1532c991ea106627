/**
 * The shapes of the HTTP API, once: they check what comes in and describe both ways in OpenAPI. That the
 * agent's views fit them is checked where a route answers with one.
 */
import { z } from "@hono/zod-openapi";
import { parseDuration, PsmaError } from "../core/mod.ts";

const bytes = z.number().int().nonnegative();
const time = z.string().openapi({ format: "date-time" });
const count = z.number().int().nonnegative();

export const ProblemSchema = z.object({
  code: z.string(),
  title: z.string(),
  detail: z.string(),
  hint: z.string().optional(),
  status: z.number().int(),
}).openapi("Problem");

const PlacementSchema = z.object({
  store: z.string(),
  store_volume: z.string(),
  size_bytes: bytes,
  backend: z.union([
    z.object({
      type: z.literal("file"),
      path: z.string(),
      direct: z.boolean().optional(),
    }),
    z.object({ type: z.literal("device"), path: z.string() }),
    z.object({ type: z.literal("nbd"), uri: z.string() }),
  ]),
}).openapi("Placement");

export const VerifySchema = z.object({
  id: z.string(),
  side: z.enum(["mirror", "backup"]),
  of: z.string(),
  state: z.enum(["running", "stopped", "done"]),
  reason: z.string().optional(),
  max_rate_bytes_per_s: z.number().nullable(),
  rate_bytes_per_s: z.number(),
  started_at: time,
  ended_at: time.nullable(),
  total_bytes: bytes,
  done_bytes: bytes,
  equal_bytes: bytes,
  behind_bytes: bytes,
  busy_bytes: bytes,
  recorded_bytes: bytes,
  mismatched_bytes: bytes,
  mismatches: z.array(z.object({ at: bytes, length: bytes })).readonly(),
}).openapi("Verify");

export const MirrorSchema = z.object({
  id: z.string(),
  role: z.enum(["scale", "backup"]),
  state: z.enum([
    "requested",
    "syncing",
    "tracking",
    "resyncing",
    "converging",
    "ready",
    "switching",
    "paused",
    "failed",
  ]),
  reason: z.string().optional(),
  target: PlacementSchema,
  total_bytes: bytes,
  copied_bytes: bytes,
  compared_bytes: bytes,
  equal_bytes: bytes,
  changed_bytes: bytes,
  dirty_bytes: bytes,
  percent: z.number().min(0).max(100),
  rate_bytes_per_s: z.number(),
  dirty_rate_bytes_per_s: z.number(),
  lag_ms: z.number().nullable(),
  eta_s: z.number().nullable(),
  eta_low_s: z.number().nullable(),
  eta_high_s: z.number().nullable(),
  eta_reason: z.string().nullable(),
  scheduled: z.object({
    next_round_at: time.nullable(),
    floor_bytes_per_s: z.number(),
    ceiling_bytes_per_s: z.number().nullable(),
    because: z.array(z.string()).readonly(),
  }),
  rounds: count,
  write_through: z.boolean(),
  digests: z.object({
    algorithm: z.string(),
    checked: count,
    mismatched: count,
    unverified_bytes: bytes,
  }),
  verify: VerifySchema.nullable(),
}).openapi("Mirror");

const CutoverSchema = z.object({
  epoch: count,
  at: time,
  io_errors: count,
  held_us_max: z.number(),
  latency_us: z.object({
    baseline_p99: z.number(),
    window_p99: z.number(),
    window_max: z.number(),
  }),
  size_before_bytes: bytes,
  size_after_bytes: bytes,
  copied_bytes: bytes,
  changed_bytes: bytes,
  digests_checked: count,
  digest_mismatches: count,
  unverified_bytes: bytes.optional(),
}).openapi("Cutover");

const ExportSchema = z.union([
  z.object({
    frontend: z.literal("nbd"),
    uri: z.string(),
    device: z.string().optional(),
    mount: z.string().optional(),
  }),
  z.object({
    frontend: z.literal("ublk"),
    device: z.string(),
    mount: z.string().optional(),
  }),
  z.object({
    frontend: z.literal("fuse"),
    path: z.string(),
    device: z.string(),
    mount: z.string().optional(),
  }),
]).openapi("Export");

const BackendOperationSchema = z.object({
  operation: z.string(),
  count,
  errors: count,
  bytes,
  latency_us: z.object({ mean: z.number(), p50: z.number(), p99: z.number(), max: z.number() }),
}).openapi("BackendOperation");

const TimeToFullSchema = z.object({
  limit_bytes: bytes,
  median_at: time.nullable(),
  upper_at: time.nullable(),
  upper_level: z.number(),
  probability_within_horizon: z.number(),
  forecast_at: time,
}).openapi("TimeToFull");

const BackupSchema = z.object({
  store: z.string(),
  size_bytes: bytes,
  mode: z.enum(["frozen", "async", "sync"]),
  state: z.enum(["frozen", "behind", "in-step", "taken-over"]),
  frozen_at: time.nullable(),
  reason: z.string().nullable(),
  complete: z.boolean(),
  written_bytes: bytes,
  verify: VerifySchema.nullable(),
  dirty_bytes: bytes.nullable(),
  lag_ms: z.number().nullable(),
}).openapi("Backup");

export const VolumeSchema = z.object({
  name: z.string(),
  state: z.enum(["attached", "detached", "failed"]),
  reason: z.string().optional(),
  size_bytes: bytes,
  max_size_bytes: bytes,
  epoch: count,
  active: z.object({
    store: z.string(),
    backend: z.string(),
    uri: z.string(),
    operations: z.array(BackendOperationSchema).readonly(),
  }),
  backup: BackupSchema.nullable(),
  exports: z.array(ExportSchema).readonly(),
  filesystem: z.object({
    type: z.string(),
    mount: z.string(),
    size_bytes: bytes,
    used_bytes: bytes,
    inodes_total: count,
    inodes_used: count,
  }).nullable(),
  used_bytes: bytes,
  used_source: z.enum(["filesystem", "allocated"]),
  mirror: MirrorSchema.nullable(),
  last_cutover: CutoverSchema.nullable(),
  time_to_full: TimeToFullSchema.nullable(),
}).openapi("Volume");

export const RollbackSchema = z.object({
  discard_changes: z.boolean().optional(),
}).openapi("Rollback");

export const StatusSchema = z.object({
  version: z.string(),
  started_at: time,
  ready: z.boolean(),
  not_ready: z.array(z.string()).readonly(),
  unreachable_stores: z.array(z.object({ name: z.string(), reason: z.string() })).readonly(),
  volumes: z.array(VolumeSchema).readonly(),
}).openapi("Status");

export const PlanSchema = z.object({
  volume: z.string(),
  at: time,
  action: z.enum(["none", "wait", "mirror", "scale", "switch", "advise", "blocked"]),
  because: z.array(z.string()).readonly(),
  numbers: z.record(z.string(), z.number().nullable()),
  target_size_bytes: bytes.nullable(),
}).openapi("Plan");

export const EventSchema = z.object({
  id: count,
  at: time,
  type: z.string(),
  severity: z.enum(["info", "warning", "error"]),
  volume: z.string().nullable(),
  message: z.string(),
  data: z.record(z.string(), z.union([z.string(), z.number(), z.boolean(), z.null()])),
}).openapi("Event");

export const OperationSchema = z.object({
  id: z.string(),
  verb: z.string(),
  volume: z.string(),
  state: z.enum(["running", "done", "failed"]),
  started_at: time,
  ended_at: time.nullable(),
  error: z.object({ code: z.string(), title: z.string(), hint: z.string().optional() }).nullable(),
  result: z.unknown(),
}).openapi("Operation");

export const ForecastSchema = z.object({
  volume: z.string(),
  metric: z.string(),
  origin_ms: z.number(),
  step_ms: z.number(),
  horizon_ms: z.number(),
  levels: z.array(z.number()).readonly(),
  steps: z.array(z.object({ at_ms: z.number(), values: z.array(z.number()).readonly() }))
    .readonly(),
  history_points: count,
  model: z.array(z.object({ name: z.string(), weight: z.number() })).readonly(),
  backtest: z.object({
    windows: count,
    coverage80: z.number().nullable(),
    pinball: z.number().nullable(),
  }),
  time_to_limit: z.object({
    limit: z.number(),
    by_level: z.array(z.object({ level: z.number(), at_ms: z.number().nullable() })).readonly(),
    probability_within_horizon: z.number(),
  }).optional(),
  fit_ms: z.number(),
}).openapi("Forecast");

export const HistorySchema = z.object({
  metric: z.string(),
  step_ms: z.number(),
  points: z.array(z.object({ at_ms: z.number(), value: z.number() })).readonly(),
}).openapi("History");

export const CreateVolumeSchema = z.strictObject({
  name: z.string(),
  size_bytes: bytes.positive(),
  max_size_bytes: bytes.positive().optional(),
  store: z.string().optional(),
  frontend: z.enum(["auto", "ublk", "fuse", "nbd"]).optional(),
}).openapi("CreateVolume");

/** A longer one is none. */
const DEADLINE_MS_MAX = 366 * 86_400_000;

export const WishSchema = z.strictObject({
  deadline_ms: z.number().int().nonnegative().max(DEADLINE_MS_MAX).optional(),
}).openapi("Wish");

export const ScaleOrderSchema = WishSchema.extend({
  size_bytes: bytes.positive().optional(),
}).openapi("ScaleOrder");

export const StartVerifySchema = z.strictObject({
  max_rate_bytes_per_s: z.number().int().positive().optional(),
  resume: z.boolean().optional(),
  backup: z.boolean().optional(),
}).openapi("StartVerify");

export const DetachSchema = z.strictObject({
  force: z.boolean().optional(),
}).openapi("Detach");

export const VolumeParameter = z.object({
  volume: z.string().openapi({ param: { name: "volume", in: "path" }, example: "data" }),
});

const duration = (example: string) =>
  z.string().transform((text, context) => {
    try {
      return parseDuration(text);
    } catch (error) {
      context.addIssue((error as PsmaError).message);
      return z.NEVER;
    }
  }).openapi({ type: "string", example });

export const ForecastQuery = z.strictObject({
  metric: z.string().default("used_bytes"),
  horizon: duration("24h").optional(),
  levels: z.string().transform((text, context) => {
    const levels = text.split(",").map(Number);
    if (levels.every((level) => level > 0 && level < 1)) return levels;
    context.addIssue(`Cannot read levels: "${text}" is not a list of numbers between 0 and 1`);
    return z.NEVER;
  }).openapi({ type: "string", example: "0.1,0.5,0.9" }).optional(),
});

export const HistoryQuery = z.strictObject({
  metric: z.string().default("used_bytes"),
  from: z.iso.datetime({ offset: true }).optional(),
  to: z.iso.datetime({ offset: true }).optional(),
  step: duration("5m").optional(),
});

export const EventsQuery = z.strictObject({
  after: z.coerce.number().int().nonnegative().optional(),
  limit: z.coerce.number().int().min(1).max(1000).optional(),
  volume: z.string().optional(),
});

/** The error for a request that does not fit its schema: the first fault, with its place. */
export function schemaFault(error: z.ZodError): PsmaError {
  const issue = error.issues[0];
  const place = issue?.path.join(".") ?? "";
  return new PsmaError(
    "usage/request",
    `Cannot read the request: ${place === "" ? "" : `${place}: `}${issue?.message ?? "not valid"}`,
    { hint: "GET /openapi.json describes every request." },
  );
}
