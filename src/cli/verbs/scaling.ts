/** `psma scale`, `psma switch`, `psma rollback`, `psma retire`: what happens to a volume by an operator's will. */
import type { Command } from "@commander-js/extra-typings";
import type { AgentClient, Operation } from "../../api/client.ts";
import { PsmaError } from "../../core/mod.ts";
import { followOperation } from "../progress.ts";
import { type Start, verb } from "../verb.ts";
import { sizeOf } from "./mirror.ts";

export function scaleVerb(start: Start): Command {
  return verb(
    "scale",
    "Switch to a larger volume (making and filling it first where needed) and grow",
    [
      "psma scale data --size 20GiB",
      "psma scale data --size 20GiB --no-wait",
    ],
  )
    .argument("<volume>")
    .option("--size <size>", "the new size (default: what the plan asks for)")
    .option("--no-wait", "do not wait for the end")
    .action((volume, options) =>
      start(options, async (session) => {
        const begun = await (await session.agent()).scale(volume, sizeOf(options.size));
        await followOperation(session, begun, options.wait);
      })
    ) as never;
}

export function switchVerb(start: Start): Command {
  return simpleVerb(start, {
    name: "switch",
    about: "Cut over to the mirror now, and grow",
    begin: (agent, volume) => agent.switchVolume(volume),
  });
}

export function rollbackVerb(start: Start): Command {
  return verb("rollback", "Go back to the backup, live where it is followed", [
    "psma rollback data",
    "psma rollback data --discard-changes --yes",
  ])
    .argument("<volume>")
    .option("--discard-changes", "to a frozen backup: throw away what was written since")
    .option("--no-wait", "do not wait for the end")
    .option("--yes", "it is meant")
    .action((volume, options) =>
      start(options, async (session) => {
        const discard_changes = options.discardChanges === true;
        if (discard_changes && !options.yes) {
          throw new PsmaError("usage/confirm", `Cannot roll back ${volume}: --yes is missing`, {
            hint: "This throws away what was written since. Add --yes when that is meant.",
          });
        }
        const agent = await session.agent();
        await followOperation(
          session,
          await agent.rollback(volume, { discard_changes }),
          options.wait,
        );
      })
    ) as never;
}

export function retireVerb(start: Start): Command {
  return simpleVerb(start, {
    name: "retire",
    about: "Delete the backup and give its space back",
    begin: (agent, volume) => agent.retire(volume),
    confirm: "This deletes the former source, the only way back. Add --yes when that is meant.",
  });
}

interface SimpleVerb {
  readonly name: string;
  readonly about: string;
  readonly begin: (agent: AgentClient, volume: string) => Promise<Operation>;
  /** Why --yes is asked for. */
  readonly confirm?: string;
}

function simpleVerb(start: Start, { name, about, begin, confirm }: SimpleVerb): Command {
  const example = confirm === undefined ? `psma ${name} data` : `psma ${name} data --yes`;
  return verb(name, about, [example])
    .argument("<volume>")
    .option("--no-wait", "do not wait for the end")
    .option("--yes", confirm === undefined ? "accepted, not needed" : "it is meant")
    .action((volume, options) =>
      start(options, async (session) => {
        if (confirm !== undefined && !options.yes) {
          throw new PsmaError("usage/confirm", `Cannot ${name} ${volume}: --yes is missing`, {
            hint: confirm,
          });
        }
        await followOperation(session, await begin(await session.agent(), volume), options.wait);
      })
    ) as never;
}
