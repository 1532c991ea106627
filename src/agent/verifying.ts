/**
 * Comparing both sides of a volume's mirror, as an operation: begun by an operator or by the schedule, and
 * watched until it ends. The data plane keeps how it stands, so a restarted agent goes on watching.
 */
import { PsmaError } from "../core/mod.ts";
import type { VerifyStatus } from "../dataplane/mod.ts";
import { type AgentContext, pause } from "./context.ts";
import { statusOf } from "./scaling_steps.ts";
import type { Operation, VerifyOptions } from "./views.ts";
import type { VolumeUnit } from "./volume_unit.ts";

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
    id,
    max_rate_bytes_per_s: options.max_rate_bytes_per_s ??
      unit.config.mirror.verify.max_rate_bytes_per_s,
    resume: options.resume ?? false,
  });
  return watch(context, unit, id);
}

/** Ends the verify that runs; it can be gone on with. @throws {PsmaError} state/no-verify */
export async function stopVerify(context: AgentContext, unit: VolumeUnit): Promise<VerifyStatus> {
  unit.needOpen("stop the verify of");
  return await context.plane.command("stopVerify", { volume: unit.name });
}

/** Watches again the verify that the data plane has gone on with after a restart. */
export async function resumeVerify(context: AgentContext, unit: VolumeUnit): Promise<void> {
  const status = await context.plane.command("verifyStatus", { volume: unit.name });
  if (status?.state === "running") watch(context, unit, status.id);
}

function watch(context: AgentContext, unit: VolumeUnit, id: string): Operation {
  return context.operations.start(
    { id, verb: "verify", volume: unit.name },
    () => untilEnded(context, unit, id),
  );
}

async function untilEnded(
  context: AgentContext,
  unit: VolumeUnit,
  id: string,
): Promise<VerifyStatus> {
  const { name } = unit;
  for (let wait_ms = POLL_FIRST_MS;; wait_ms = Math.min(wait_ms * 1.5, POLL_MAX_MS)) {
    const status = await context.plane.command("verifyStatus", { volume: name });
    if (status?.id !== id || status.state === "stopped") {
      throw new PsmaError(
        "state/verify-stopped",
        `Cannot finish the verify of ${name}: ${status?.reason ?? "it was stopped"}`,
        { hint: `psma mirror verify ${name} --resume goes on where it was.` },
      );
    }
    if (status.state === "done") return status;
    await pause(context, wait_ms);
  }
}
