/** The command line. */
export { runCli } from "./program.ts";
export type {
  CliParts,
  ConfigFault,
  Finding,
  LoadedConfig,
  NbdDevice,
  ProbeHost,
  Service,
  StartAgent,
  StartStore,
} from "./parts.ts";
