/** When a mirror or a frozen backup is verified by itself: so long after the last time as is configured. */
import { toPsmaError } from "../core/mod.ts";
import type { VerifyStatus } from "../dataplane/mod.ts";
import type { AgentContext } from "./context.ts";
import { beginVerify } from "./verifying.ts";
import type { VolumeUnit } from "./volume_unit.ts";

/** States of a mirror that has what the volume had. */
const SYNCED: readonly string[] = ["tracking", "resyncing", "ready"];

/**
 * Whether the next verify is due. Pure. One that was never done is due at once; one that runs is not; one that
 * was stopped counts from its end. @param last the verify of this very mirror or backup.
 */
export function isVerifyDue(
  { every_ms, now_ms, last }: { every_ms: number; now_ms: number; last: VerifyStatus | null },
): boolean {
  if (last === null) return true;
  if (last.state === "running") return false;
  return now_ms - Date.parse(last.ended_at ?? last.started_at) >= every_ms;
}

/** Begins what is due, one at a time. Never throws: what cannot be begun is tried again later. */
export async function verifyWhenDue(context: AgentContext, unit: VolumeUnit): Promise<void> {
  const { catalogue, clock, log, plane } = context;
  const { name, open, config: { mirror: { verify: { every_ms } } } } = unit;
  if (every_ms === null || !open || catalogue.find(name)?.intent) return;
  const now_ms = clock.nowMs();
  try {
    const { mirror, backup_status } = await plane.command("volumeStatus", { name });
    if (mirror && SYNCED.includes(mirror.state)) {
      if (mirror.verify?.state === "running") return;
      if (isVerifyDue({ every_ms, now_ms, last: mirror.verify })) {
        return void await beginVerify(context, unit, {});
      }
    }
    if (backup_status?.state !== "frozen") return;
    if (!isVerifyDue({ every_ms, now_ms, last: backup_status.verify })) return;
    await beginVerify(context, unit, { backup: true });
  } catch (error) {
    const { code, message } = toPsmaError(error);
    log.debug("no verify yet", { volume: name, code, reason: message });
  }
}
