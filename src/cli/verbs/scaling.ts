/** `psma scale`, `psma switch`, `psma rollback`, `psma retire`: what happens to a volume by an operator's will. */
import type { Command } from "@commander-js/extra-typings";
import { PsmaError } from "../../core/mod.ts";
import { followOperation } from "../progress.ts";
import { type Start, verb } from "../verb.ts";
import { DEADLINE_OPTION, sizeOf, URGENT_OPTION, wishOf } from "./orders.ts";

export function scaleVerb(start: Start): Command {
  return verb(
    "scale",
    "Switch to a larger volume (making and filling it first where needed) and grow",
    [
      "psma scale data --size 20GiB",
      "psma scale data --size 20GiB --deadline 10m",
      "psma scale data --size 20GiB --no-wait",
    ],
  )
    .argument("<volume>")
    .option("--size <size>", "the new size (default: what the plan asks for)")
    .option(...DEADLINE_OPTION)
    .option(...URGENT_OPTION)
    .option("--no-wait", "do not wait for the end")
    .action((volume, options) =>
      start(options, async (session) => {
        const order = { ...sizeOf(options.size), ...wishOf(options) };
        const begun = await (await session.agent()).scale(volume, order);
        await followOperation(session, begun, options.wait);
      })
    ) as never;
}

export function switchVerb(start: Start): Command {
  return verb("switch", "Cut over to the mirror now, and grow", [
    "psma switch data",
    "psma switch data --urgent",
  ])
    .argument("<volume>")
    .option(...DEADLINE_OPTION)
    .option(...URGENT_OPTION)
    .option("--no-wait", "do not wait for the end")
    .option("--yes", "accepted, not needed")
    .action((volume, options) =>
      start(options, async (session) => {
        const begun = await (await session.agent()).switchVolume(volume, wishOf(options));
        await followOperation(session, begun, options.wait);
      })
    ) as never;
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
  return verb("retire", "Delete the backup and give its space back", ["psma retire data --yes"])
    .argument("<volume>")
    .option("--no-wait", "do not wait for the end")
    .option("--yes", "it is meant")
    .action((volume, options) =>
      start(options, async (session) => {
        if (!options.yes) {
          throw new PsmaError("usage/confirm", `Cannot retire ${volume}: --yes is missing`, {
            hint:
              "This deletes the former source, the only way back. Add --yes when that is meant.",
          });
        }
        await followOperation(session, await (await session.agent()).retire(volume), options.wait);
      })
    ) as never;
}
