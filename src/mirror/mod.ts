/** The mirror: sync, resync, converge and their schedule, pace, digest checks, verify and gate, cutover. */
export * from "./copier.ts";
export * from "./cutover.ts";
export * from "./digest.ts";
export type { MirrorEventSink } from "./events.ts";
export * from "./mirror.ts";
export * from "./mirror_options.ts";
export { type ApplicationLoad, LoadMark, type PaceLimits } from "./pace.ts";
export type { LoadStep } from "./predicted_load.ts";
export type { Guidance } from "./scheduler.ts";
export { type MirrorState, next } from "./state.ts";
export type { TargetControl } from "./target_control.ts";
export * from "./window.ts";
export { Verify, type VerifyOptions } from "./verify.ts";
