/** Volumes: admission, the way to the backends, change map, counters and manifest. */
export { OPERATION, OPERATION_FLAG } from "../backend/mod.ts";
export * from "./change_map.ts";
export * from "./counters.ts";
export * from "./link.ts";
export * from "./manifest.ts";
export * from "./requests.ts";
export * from "./volume.ts";
