/** `psma mirror …`: the larger copy, from its request to its readiness. */
import type { Command } from "@commander-js/extra-typings";
import { parseSize } from "../../core/mod.ts";
import { formatMirror, formatMirrorProgress } from "../mirror_text.ts";
import { followOperation } from "../progress.ts";
import { group, type Session, type Start, verb } from "../verb.ts";

export function mirrorVerbs(start: Start): Command {
  const status = verb("status", "Show how the mirror stands", ["psma mirror status data --json"])
    .argument("<volume>")
    .action((volume, options) =>
      start(options, async (session) => {
        const mirror = await (await session.agent()).mirror(volume);
        session.answer(mirror, () => formatMirror(mirror));
      })
    );
  return group("mirror", "Start, watch and stop the mirror of a volume", [
    startVerb(start),
    status as never,
    stateVerb(start, "pause", "pauseMirror", "Stop copying for now"),
    stateVerb(start, "resume", "resumeMirror", "Go on copying"),
    cancelVerb(start),
  ]);
}

function startVerb(start: Start): Command {
  return verb("start", "Have a larger volume made and fill it", [
    "psma mirror start data",
    "psma mirror start data --size 20GiB",
  ])
    .argument("<volume>")
    .option("--size <size>", "the target's size (default: what the plan asks for)")
    .option("--no-wait", "do not wait until it is filled")
    .action((volume, options) =>
      start(options, async (session) => {
        const agent = await session.agent();
        const begun = await agent.startMirror(volume, sizeOf(options.size));
        await followOperation(session, begun, options.wait);
      })
    ) as never;
}

function stateVerb(
  start: Start,
  name: string,
  method: "pauseMirror" | "resumeMirror",
  about: string,
): Command {
  return verb(name, about, [`psma mirror ${name} data`])
    .argument("<volume>")
    .action((volume, options) =>
      start(options, async (session) => {
        const mirror = await (await session.agent())[method](volume);
        session.answer(mirror, () => formatMirrorProgress(mirror));
      })
    ) as never;
}

function cancelVerb(start: Start): Command {
  return verb("cancel", "Give the mirror and its target up", ["psma mirror cancel data"])
    .argument("<volume>")
    .action((volume, options) => start(options, (session) => cancel(session, volume))) as never;
}

async function cancel(session: Session, volume: string): Promise<void> {
  await (await session.agent()).cancelMirror(volume);
  session.answer({ cancelled: true, volume }, () => `Gave the mirror of ${volume} up.`);
}

/** A size option as the API takes it. */
export function sizeOf(size: string | undefined): { size_bytes?: number } {
  return size === undefined ? {} : { size_bytes: parseSize(size) };
}
