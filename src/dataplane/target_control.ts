/** What only a target's store can do, done here or asked of the main thread. */
import type { TargetControl } from "../mirror/mod.ts";
import type { Placement } from "../volume/mod.ts";
import { DigestQuestions } from "./digest_questions.ts";
import { digestExtents } from "./digests.ts";
import type { VolumeParts } from "./volume_opening.ts";

/** A file or device that is the target is open in this very process and read back here; others are asked. */
export function targetControl({ context, volume }: VolumeParts, target: Placement): TargetControl {
  const { ask, calls, digest } = context;
  const questions = new DigestQuestions(
    (extents) => ask("digests", { target, extents }),
    context.reactor,
  );
  return {
    digests: async (extents) => {
      const backend = volume.link?.target;
      if (target.backend.type !== "nbd" && backend) {
        return (await digestExtents(backend, extents, calls, digest)).digests;
      }
      return await questions.ask(extents);
    },
    promote: async (epoch, claimant) => {
      await ask("promote", { target, epoch, claimant });
    },
  };
}
