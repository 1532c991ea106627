/** The one thing of the state directory that there is before the API's address is taken. */
import type { AgentConfig } from "./config.ts";
import { makeStateDirectory } from "./state_files.ts";

/**
 * Makes the state directory if the API's socket is to be in it. Nobody else can listen in a directory that
 * is missing, so an agent that finds its address taken has made none.
 * @throws {PsmaError} forbidden/state, io/state
 */
export function makeSocketPlace({ api: { listen }, state_dir }: AgentConfig): void {
  if ("path" in listen && listen.path.startsWith(`${state_dir}/`)) makeStateDirectory(state_dir);
}
