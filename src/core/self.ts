/** How this program starts another process of itself, whether it runs from sources, a bundle or one binary. */
import { fileURLToPath } from "node:url";

export interface SelfCommand {
  readonly command: string;
  readonly args: string[];
}

const SOURCE_SUFFIX = "/src/core/self.ts";

/**
 * The command that runs this same program with `args`.
 * From sources: deno with the project's own configuration; compiled: the executable itself;
 * bundled: deno on the bundle, without reading a configuration file that happens to lie around.
 */
export function selfCommand(args: readonly string[]): SelfCommand {
  const here = import.meta.url;
  const command = Deno.execPath();
  if (here.startsWith("file:") && here.endsWith(SOURCE_SUFFIX)) {
    const root = fileURLToPath(here.slice(0, -SOURCE_SUFFIX.length));
    const flags = ["run", "--quiet", "--no-prompt", "-A", "--config", `${root}/deno.json`];
    return { command, args: [...flags, `${root}/main.ts`, ...args] };
  }
  if (Deno.build.standalone) return { command, args: [...args] };
  const flags = ["run", "--quiet", "--no-prompt", "-A", "--no-config", Deno.mainModule];
  return { command, args: [...flags, ...args] };
}
