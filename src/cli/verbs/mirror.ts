/** `psma mirror …`: the larger copy, from its request to its readiness. */
import type { Command } from "@commander-js/extra-typings";
import type { Operation, VerifyResult } from "../../api/client.ts";
import { parseSize, PsmaError } from "../../core/mod.ts";
import { formatMirror, formatMirrorProgress } from "../mirror_text.ts";
import { followOperation } from "../progress.ts";
import { formatVerify, formatVerifyLine, formatVerifyProgress } from "../verify_text.ts";
import { DEADLINE_OPTION, sizeOf, URGENT_OPTION, wishOf } from "./orders.ts";
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
    verifyVerb(start),
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
    .option(...DEADLINE_OPTION)
    .option(...URGENT_OPTION)
    .option("--no-wait", "do not wait until it is filled")
    .action((volume, options) =>
      start(options, async (session) => {
        const agent = await session.agent();
        const order = { ...sizeOf(options.size), ...wishOf(options) };
        const begun = await agent.startMirror(volume, order);
        await followOperation(session, begun, options.wait);
      })
    ) as never;
}

function verifyVerb(start: Start): Command {
  return verb("verify", "Compare both sides of the mirror while the volume is in use", [
    "psma mirror verify data",
    "psma mirror verify data --max-rate 50MiB",
    "psma mirror verify data --stop",
    "psma mirror verify data --resume",
  ])
    .argument("<volume>")
    .option("--max-rate <rate>", "bytes per second at most (default: what the configuration says)")
    .option("--backup", "the frozen backup, with digests of itself, not the mirror")
    .option("--resume", "go on where a stopped one was")
    .option("--stop", "stop the one that runs")
    .option("--no-wait", "do not wait until it is done")
    .action((volume, options) =>
      start(options, async (session) => {
        const agent = await session.agent();
        if (options.stop) {
          const stopped = await agent.stopVerify(volume);
          return session.answer(stopped, () => formatVerifyLine(stopped));
        }
        const begun = await agent.verifyMirror(volume, {
          ...(options.maxRate === undefined
            ? {}
            : { max_rate_bytes_per_s: rateOf(options.maxRate) }),
          ...(options.resume ? { resume: true } : {}),
          ...(options.backup ? { backup: true } : {}),
        });
        const done = await followOperation(session, begun, options.wait, {
          draw: ({ verify }) => verify === null ? "" : formatVerifyProgress(verify),
          result: ({ result }) => `\n${formatVerify(result as VerifyResult)}`,
        });
        refuseDifference(volume, done);
      })
    ) as never;
}

/** What differed has been printed; the exit code says it too. */
function refuseDifference(volume: string, { state, result }: Operation): void {
  if (state !== "done") return;
  const { mismatched_bytes, side } = result as VerifyResult;
  if (mismatched_bytes === 0) return;
  throw new PsmaError(
    "verify/mismatch",
    `Cannot call the ${side} of ${volume} sound: ${mismatched_bytes} bytes differed`,
    {
      hint: side === "mirror"
        ? "They are copied again from the source; look at the target's disk."
        : "Nothing repairs a backup that is not followed; look at its disk.",
    },
  );
}

/** Bytes per second, written `50MiB` or `50MiB/s`. */
function rateOf(text: string): number {
  return parseSize(text.replace(/\/s$/, ""));
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
