/** The agent: configuration, plans, and the life of volumes. */
export { type RunningAgent, type StartAgent, startAgent } from "./agent.ts";
export {
  type AgentConfig,
  checkConfig,
  describeConfig,
  loadConfig,
  parseConfig,
  readConfigFile,
} from "./config.ts";
export { type ConfigProblem, formatProblem } from "./config_problems.ts";
export { probeStores } from "./store_watch.ts";
export { configWarnings } from "./config_warnings.ts";
export { makeSocketPlace } from "./socket_place.ts";
export * from "./views.ts";
