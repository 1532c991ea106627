/** How a mirror tells what an operator should know. */
import type { Range } from "../volume/mod.ts";

export interface MirrorEventSink {
  (
    type: string,
    severity: "info" | "warning" | "error",
    message: string,
    data?: Record<string, string | number | boolean | null>,
  ): void;
}

/** A store did not keep what it was sent. @param strikes in a row, on this extent. */
export function tellMismatch(emit: MirrorEventSink, { at, length }: Range, strikes: number): void {
  const message = `The target persisted other bytes than were sent, ${length} bytes at ${at}`;
  emit("mirror.digest-mismatch", "error", message, { at, length, strikes });
}

/** A comparison of both sides found a difference. */
export function tellUnequal(emit: MirrorEventSink, { at, length }: Range): void {
  const message = `Both sides of the mirror differ from byte ${at} on; it is copied again`;
  emit("mirror.verify-mismatch", "error", message, { at, length });
}
