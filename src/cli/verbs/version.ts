/** `psma version`. */
import type { Command } from "@commander-js/extra-typings";
import { type Start, verb } from "../verb.ts";

export function versionVerb(start: Start): Command {
  return verb("version", "Show the version", ["psma version", "psma version --json"])
    .action((options) =>
      start(options, (session) => {
        const { version } = session.parts;
        const { deno } = Deno.version;
        const { os, arch } = Deno.build;
        session.answer({ version, deno, os, arch }, () =>
          `psma ${version} (deno ${deno}, ${os}/${arch})`);
        return Promise.resolve();
      })
    ) as never;
}
