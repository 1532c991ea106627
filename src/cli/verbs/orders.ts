/** What mirrors, scaling events and switches are ordered with, as options and as the API takes it. */
import { parseDuration, parseSize, PsmaError } from "../../core/mod.ts";

export const DEADLINE_OPTION = [
  "--deadline <time>",
  "have it done within 10m, even if that slows the application (default: the application first)",
] as const;
export const URGENT_OPTION = ["--urgent", "at once, whatever that costs the application"] as const;

export function sizeOf(size: string | undefined): { size_bytes?: number } {
  return size === undefined ? {} : { size_bytes: parseSize(size) };
}

/** @throws {PsmaError} usage/... for both at once, or a text that is no duration. */
export function wishOf(
  { deadline, urgent }: { deadline?: string | undefined; urgent?: true | undefined },
): { deadline_ms?: number } {
  if (urgent !== true) {
    return deadline === undefined ? {} : { deadline_ms: parseDuration(deadline) };
  }
  if (deadline === undefined) return { deadline_ms: 0 };
  throw new PsmaError("usage/options", "Cannot take --urgent and --deadline together", {
    hint: "--urgent means: at once.",
  });
}
