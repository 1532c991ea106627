/**
 * Comparing both sides of a volume's mirror, as an operation: begun by an operator or by the schedule, and
 * watched until it ends. The data plane keeps how it stands, so a restarted agent goes on watching.
 */
import { PsmaError, toPsmaError } from "../core/mod.ts";
import { findOwners, type RangeOwners, type VerifyStatus } from "../dataplane/mod.ts";
import { type AgentContext, pause } from "./context.ts";
import { statusOf } from "./scaling_steps.ts";
import { placesOf } from "./show.ts";
import type { Operation, VerifyOptions, VerifyResult } from "./views.ts";
import type { VolumeUnit } from "./volume_unit.ts";

/** Owners are looked for of so many ranges, for so long. */
const OWNED_RANGES_MAX = 32, OWNERS_WITHIN_MS = 60_000;
const FILES_TOLD_MAX = 8;
const SIDES = ["mirror", "backup"] as const;
const POLL_FIRST_MS = 100, POLL_MAX_MS = 2000;

/** Begins a verify. @throws {PsmaError} state/no-mirror, state/verify while another runs */
export async function beginVerify(
  context: AgentContext,
  unit: VolumeUnit,
  options: VerifyOptions,
): Promise<Operation> {
  await statusOf(context, unit, "verify");
  const id = context.operations.newId();
  await context.plane.command("beginVerify", {
    volume: unit.name,
    side: options.backup ? "backup" : "mirror",
    id,
    max_rate_bytes_per_s: options.max_rate_bytes_per_s ??
      unit.config.mirror.verify.max_rate_bytes_per_s,
    resume: options.resume ?? false,
  });
  return watch(context, unit, { id, side: options.backup ? "backup" : "mirror" });
}

/** Ends the verify that runs; it can be gone on with. @throws {PsmaError} state/no-verify */
export async function stopVerify(context: AgentContext, unit: VolumeUnit): Promise<VerifyStatus> {
  unit.needOpen("stop the verify of");
  return await context.plane.command("stopVerify", { volume: unit.name });
}

/** Watches again the verify that the data plane has gone on with after a restart. */
export async function resumeVerify(context: AgentContext, unit: VolumeUnit): Promise<void> {
  for (const side of SIDES) {
    const status = await context.plane.command("verifyStatus", { volume: unit.name, side });
    if (status?.state === "running") watch(context, unit, status);
  }
}

function watch(
  context: AgentContext,
  unit: VolumeUnit,
  verify: Pick<VerifyStatus, "id" | "side">,
): Operation {
  return context.operations.start(
    { id: verify.id, verb: "verify", volume: unit.name },
    () => untilEnded(context, unit, verify),
  );
}

async function untilEnded(
  context: AgentContext,
  unit: VolumeUnit,
  { id, side }: Pick<VerifyStatus, "id" | "side">,
): Promise<VerifyResult> {
  const { name } = unit;
  for (let wait_ms = POLL_FIRST_MS;; wait_ms = Math.min(wait_ms * 1.5, POLL_MAX_MS)) {
    const status = await context.plane.command("verifyStatus", { volume: name, side });
    if (status?.id !== id || status.state === "stopped") {
      throw new PsmaError(
        "state/verify-stopped",
        `Cannot finish the verify of ${name}: ${status?.reason ?? "it was stopped"}`,
        { hint: `psma mirror verify ${name} --resume goes on where it was.` },
      );
    }
    if (status.state === "done") {
      return { ...status, owners: await ownersOf(context, unit, status) };
    }
    await pause(context, wait_ms);
  }
}

/** Who owns what differed; none where nothing is mounted, or where it can not be told. */
async function ownersOf(
  { events, log }: AgentContext,
  { name, attachment }: VolumeUnit,
  { mismatches, id, side }: VerifyStatus,
): Promise<readonly RangeOwners[]> {
  const { mount } = placesOf(attachment?.exports ?? []);
  // A backup is of another time: the files of now say nothing about it.
  if (mount === null || side === "backup" || mismatches.length === 0) return [];
  try {
    const ranges = mismatches.slice(0, OWNED_RANGES_MAX);
    const owners = await findOwners({ mount, ranges, within_ms: OWNERS_WITHIN_MS });
    const files = [...new Set(owners.flatMap((one) => one.files))];
    const told = files.slice(0, FILES_TOLD_MAX).join(", ");
    events.add({
      type: "mirror.verify-files",
      severity: "error",
      volume: name,
      message: files.length === 0
        ? "No file was found to own what differed"
        : `What differed belongs to ${told}${files.length > FILES_TOLD_MAX ? ", …" : ""}`,
      data: { operation: id, files: files.length },
    });
    return owners;
  } catch (error) {
    log.warn("owners were not found", { volume: name, reason: toPsmaError(error).message });
    return [];
  }
}
