/** The command line. */
export { runCli } from "./program.ts";
export type { CliParts, Service, StartAgent } from "./parts.ts";
