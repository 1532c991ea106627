/** Volumes: admission, the way to the backends, change map, counters and manifest. */
export type {
  BackendSpec,
  BackupDigests,
  BackupMode,
  BackupRest,
  CutoverReport,
  DifferingRange,
  FirstSync,
  LatencyReport,
  Manifest,
  MirrorRecord,
  MirrorTerms,
  Placement,
  RateWindow,
  VerifyRecord,
} from "../codec/mod.ts";
export { atEpoch, epochBeyond, epochOf } from "../codec/mod.ts";
export { OPERATION, OPERATION_FLAG } from "../backend/mod.ts";
export * from "./change_map.ts";
export * from "./counters.ts";
export * from "./files.ts";
export * from "./intent_log.ts";
export * from "./link.ts";
export * from "./manifest.ts";
export * from "./range.ts";
export * from "./requests.ts";
export * from "./unverified_map.ts";
export * from "./volume.ts";
