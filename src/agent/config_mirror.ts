/** The mirror's part of a volume's configuration: its keys, defaults and limits. */
import type { BackupMode, RateWindow } from "../dataplane/mod.ts";
import type { Section } from "./config_section.ts";

export interface MirrorConfig {
  /** Where the larger volume is made. */
  readonly store: string;
  /** How old a write may become before the waiting mirror has it. */
  readonly rpo_ms: number;
  /** Outside of all windows. Null: as fast as the application's own latency lets it. */
  readonly max_rate_bytes_per_s: number | null;
  readonly min_rate_bytes_per_s: number;
  /** Hours with a ceiling of their own, in UTC; the first that covers a moment counts. */
  readonly rate_windows: readonly RateWindow[];
  /** So long before the predicted time of need the mirror is to be complete. */
  readonly deadline_safety_ms: number;
  readonly durability: "process" | "power";
  readonly write_through_timeout_ms: number;
  /** What becomes of the former source after a switch. */
  readonly backup: BackupMode;
  /** With `sync`: how long the active store may be lost before the backup takes over. */
  readonly failover_after_ms: number;
  readonly verify: VerifySchedule;
}

/** Comparing both sides of the mirror by itself. */
export interface VerifySchedule {
  /** Null: only when asked for. */
  readonly every_ms: number | null;
  /** Null: as fast as the application's own latency lets it. */
  readonly max_rate_bytes_per_s: number | null;
}

const LEAST_RATE_BYTES_PER_S = 64 * 1024;
const WINDOWS_MAX = 32;
const DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const EVERY_DAY = DAYS.map((_, day) => day);

/** The default of every key: also for a volume that is not in the configuration. */
export function defaultMirror(store: string, stores: readonly string[]): MirrorConfig {
  return {
    store: stores.find((one) => one !== store) ?? store,
    rpo_ms: 300_000,
    max_rate_bytes_per_s: null,
    min_rate_bytes_per_s: 0,
    rate_windows: [],
    deadline_safety_ms: 60_000,
    durability: "power",
    write_through_timeout_ms: 200,
    backup: "frozen",
    failover_after_ms: 5_000,
    verify: { every_ms: null, max_rate_bytes_per_s: null },
  };
}

/** @param fallback what absent keys stand for. @param store as it was read. */
export function readMirror(section: Section, fallback: MirrorConfig, store: string): MirrorConfig {
  const ceiling = readCeiling(section);
  const floor = section.has("min_rate")
    ? section.rate("min_rate", { minimum: 0 })
    : fallback.min_rate_bytes_per_s;
  if (ceiling !== null && floor > ceiling) section.refuse("min_rate", "it is above max_rate");
  const config: MirrorConfig = {
    store,
    rpo_ms: section.duration("rpo", { fallback: fallback.rpo_ms, minimum: 1_000 }),
    max_rate_bytes_per_s: ceiling,
    min_rate_bytes_per_s: floor,
    rate_windows: section.list("schedule", { most: WINDOWS_MAX }).map(readWindow),
    deadline_safety_ms: section.duration("deadline_safety", {
      fallback: fallback.deadline_safety_ms,
    }),
    durability: section.choice("durability", {
      values: ["process", "power"],
      fallback: fallback.durability,
    }),
    write_through_timeout_ms: section.duration("write_through_timeout", {
      fallback: fallback.write_through_timeout_ms,
      minimum: 10,
    }),
    backup: section.choice("backup", {
      values: ["frozen", "async", "sync"],
      fallback: fallback.backup,
    }),
    failover_after_ms: section.duration("failover_after", {
      fallback: fallback.failover_after_ms,
      minimum: 500,
    }),
    verify: readVerify(section.section("verify")),
  };
  section.end();
  return config;
}

function readVerify(section: Section): VerifySchedule {
  const config: VerifySchedule = {
    every_ms: section.has("every") ? section.duration("every", { minimum: 60_000 }) : null,
    max_rate_bytes_per_s: readCeiling(section),
  };
  section.end();
  return config;
}

/** `auto`, or a size per second: `50MiB` or `50MiB/s`. */
function readCeiling(section: Section): number | null {
  if (section.text("max_rate", "auto") === "auto") return null;
  return section.rate("max_rate", { minimum: LEAST_RATE_BYTES_PER_S });
}

/** `{ from: "22:00", to: "06:00", days: [mon-fri], max_rate: 20MiB }`. */
function readWindow(section: Section): RateWindow {
  const from_minute = readMinute(section, "from"), to_minute = readMinute(section, "to");
  if (from_minute === to_minute) section.refuse("to", "the window is empty: it ends as it begins");
  if (!section.has("max_rate")) {
    section.report("max_rate", "config/missing", "it is required and absent", {
      hint: "auto is no ceiling.",
    });
  }
  const window = {
    from_minute,
    to_minute,
    days: readDays(section),
    max_rate_bytes_per_s: readCeiling(section),
  };
  section.end();
  return window;
}

/** Minutes after midnight of `HH:MM`, up to `24:00`. */
function readMinute(section: Section, key: string): number {
  const text = section.text(key), match = /^(\d{1,2}):([0-5]\d)$/.exec(text ?? "");
  const minute = match ? Number(match[1]) * 60 + Number(match[2]) : NaN;
  if (minute <= 1440) return minute;
  if (section.has(key)) {
    section.refuse(
      key,
      `"${text}" is not a time of the day`,
      'Write it in quotes, in UTC: "06:00".',
    );
  }
  return NaN;
}

/** Names and ranges of days: `mon-fri`, `[sat, sun]`. */
function readDays(section: Section): readonly number[] {
  const words = section.words("days");
  if (words === undefined) return EVERY_DAY;
  const days = new Set<number>();
  for (const word of words) {
    const [first = "", last = first] = word.toLowerCase().split("-");
    const from = DAYS.indexOf(first), to = DAYS.indexOf(last);
    if (from < 0 || to < 0) {
      section.refuse("days", `"${word}" is no day`, `Days: ${DAYS.join(", ")}, and mon-fri.`);
      continue;
    }
    for (let day = from;; day = (day + 1) % DAYS.length) {
      days.add(day);
      if (day === to) break;
    }
  }
  return [...days].sort((a, b) => a - b);
}
