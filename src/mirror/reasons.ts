/** Why the schedule decided as it did: codes with the numbers they rest on, and the sentences for them. */
import { formatDuration, formatSize } from "../core/mod.ts";

/**
 * - clean: nothing is dirty
 * - incomplete: how old the oldest write is that the target lacks is not known, so all is copied at once
 * - rpo: the last moment from which a round ends before the RPO runs out
 * - quiet: the application is predicted to be quieter then than at the last moment, or on the whole
 * - burst: many writes are predicted; the round comes before them
 * - settled: the application has stopped writing, so a copy made now is not made again
 * - spacing: a round has just ended; hot chunks are not copied over and over
 * - deadline: the larger volume will be needed soon
 * - window: configured hours set the ceiling
 * - late: the RPO cannot be kept at the rates there are
 * - ceiling: and it is the configured ceiling that keeps it from that
 * - too-slow: the deadline cannot be kept at the rates there are
 */
export type ReasonCode =
  | "clean"
  | "incomplete"
  | "rpo"
  | "quiet"
  | "burst"
  | "settled"
  | "spacing"
  | "deadline"
  | "window"
  | "late"
  | "ceiling"
  | "too-slow";

export interface Reason {
  readonly code: ReasonCode;
  /** Units are the last word of each name. */
  readonly numbers: Readonly<Record<string, number>>;
}

type Say = (number: (name: string) => number) => string;

const SENTENCES: Readonly<Record<ReasonCode, Say>> = {
  clean: () => "Nothing is to be copied.",
  incomplete: (n) => `The target is not complete: it lacks ${formatSize(n("dirty_bytes"))}.`,
  rpo: (n) =>
    `${
      formatSize(n("dirty_bytes"))
    } are dirty; with what becomes so until then a round takes about ` +
    `${formatDuration(n("took_ms"))}, and no write is to wait longer than ` +
    `${formatDuration(n("rpo_ms"))}.`,
  quiet: (n) =>
    `The application is predicted to be quieter then: ${rounded(n("load_iops"))} requests per ` +
    `second, against ${rounded(n("load_latest_iops"))} if it waited.`,
  burst: (n) =>
    `Writes are predicted to rise from ${formatSize(n("before_bytes_per_s"))}/s to ` +
    `${formatSize(n("burst_bytes_per_s"))}/s; the mirror is to be small before.`,
  settled: (n) =>
    `Nothing new became dirty for ${formatDuration(n("quiet_for_ms"))}, so what is copied now is ` +
    "not copied again.",
  spacing: (n) => `The last round took ${formatDuration(n("took_ms"))} and has just ended.`,
  deadline: (n) => `The larger volume is needed ${neededIn(n("left_ms"))}.`,
  window: (n) =>
    n("ceiling_bytes_per_s") === Infinity
      ? "Configured hours set no ceiling now."
      : `Configured hours set a ceiling of ${formatSize(n("ceiling_bytes_per_s"))}/s now.`,
  late: (n) =>
    `The oldest write will have waited ${formatDuration(n("lag_ms"))}, longer than ` +
    `${formatDuration(n("rpo_ms"))}: ${formatSize(n("dirty_bytes"))} are dirty, ` +
    `${formatSize(n("dirty_bytes_per_s"))}/s become so, ${formatSize(n("copy_bytes_per_s"))}/s ` +
    "are copied.",
  ceiling: (n) => `The ceiling of ${formatSize(n("ceiling_bytes_per_s"))}/s is too low for that.`,
  "too-slow": (n) =>
    `${formatSize(n("dirty_bytes"))} are left to copy at ${formatSize(n("copy_bytes_per_s"))}/s, ` +
    `and the larger volume is needed ${neededIn(n("left_ms"))}.`,
};

/** A sentence for a person. */
export function sentenceOf({ code, numbers }: Reason): string {
  return SENTENCES[code]((name) => numbers[name] ?? 0);
}

function neededIn(ms: number): string {
  return ms > 0 ? `in ${formatDuration(ms)}` : "now";
}

function rounded(value: number): string {
  return value >= 10 ? String(Math.round(value)) : value.toFixed(1).replace(/\.0$/, "");
}
