/** Sizes and durations as people write them, and as PSMA prints them (IEC units, RFC 3339 times). */
import { PsmaError } from "./errors.ts";

export type Bytes = number & { readonly unit: "bytes" };

const SIZE_UNITS: ReadonlyMap<string, number> = new Map([
  ["", 1],
  ["B", 1],
  ...["K", "M", "G", "T", "P"].flatMap((letter, index): [string, number][] => {
    const factor = 1024 ** (index + 1);
    return [[letter, factor], [`${letter}IB`, factor]];
  }),
  ...["K", "M", "G", "T", "P"].map((letter, index): [string, number] => [
    `${letter}B`,
    1000 ** (index + 1),
  ]),
]);

const DURATION_UNITS_MS: ReadonlyMap<string, number> = new Map([
  ["ms", 1],
  ["s", 1000],
  ["m", 60_000],
  ["h", 3_600_000],
  ["d", 86_400_000],
  ["w", 604_800_000],
]);

/**
 * Reads a size: `10GiB`, `10G` (IEC too), `10GB` (powers of 1000), `1.5TiB`, or a plain number of bytes.
 * @returns whole bytes. @throws {PsmaError} usage/size for anything else, `10Gb` (bits) too, or above 2^53 - 1.
 */
export function parseSize(text: string | number): Bytes {
  const match = /^\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*$/.exec(String(text));
  const [, number, unit = ""] = match ?? [];
  if (/^[kmgtp]?b$/i.test(unit) && unit.endsWith("b")) {
    throw new PsmaError(
      "usage/size",
      `Cannot read size: the small b of "${text}" stands for bits`,
      {
        hint: `Write bytes with a capital B, or leave it out: ${number}${
          unit.slice(0, -1) || "B"
        }.`,
      },
    );
  }
  const factor = match && SIZE_UNITS.get(unit.toUpperCase());
  const bytes = factor ? Math.round(Number(number) * factor) : NaN;
  if (!Number.isSafeInteger(bytes)) {
    throw new PsmaError("usage/size", `Cannot read size: "${text}" is not a size`, {
      hint: "Write it like 512MiB, 10GiB or 1.5TiB.",
    });
  }
  return bytes as Bytes;
}

/** Prints bytes with the largest IEC unit that keeps at least one whole: `1.5GiB`, `640KiB`, `0B`. */
export function formatSize(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let value = bytes;
  let unit = 0;
  while (Math.abs(value) >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${trimNumber(value, unit === 0 ? 0 : 2)}${units[unit]}`;
}

/** Reads a duration: `200ms`, `5s`, `5m`, `24h`, `7d`. @returns milliseconds. @throws {PsmaError} usage/duration */
export function parseDuration(text: string | number): number {
  const match = /^\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)\s*$/.exec(String(text));
  const factor = match && DURATION_UNITS_MS.get(match[2] ?? "");
  if (!match || !factor) {
    throw new PsmaError("usage/duration", `Cannot read duration: "${text}" is not a duration`, {
      hint: "Write it like 200ms, 5s, 5m, 24h or 7d.",
    });
  }
  return Number(match[1]) * factor;
}

/** Reads a share: `80%` or `0.8`. @returns a fraction in [0, 1]. @throws {PsmaError} usage/percent */
export function parsePercent(text: string | number): number {
  const match = /^\s*(\d+(?:\.\d+)?)\s*(%?)\s*$/.exec(String(text));
  const fraction = match ? Number(match[1]) / (match[2] === "%" ? 100 : 1) : NaN;
  if (!(fraction >= 0 && fraction <= 1)) {
    throw new PsmaError(
      "usage/percent",
      `Cannot read share: "${text}" is not between 0% and 100%`,
      {
        hint: "Write it like 80% or 0.8.",
      },
    );
  }
  return fraction;
}

/** Prints milliseconds as a person would say them: `450ms`, `12s`, `3m 20s`, `5h 10m`, `2d 4h`. */
export function formatDuration(ms: number): string {
  if (!Number.isFinite(ms)) return "never";
  if (ms < 1000) return `${Math.round(ms)}ms`;
  const seconds = Math.round(ms / 1000);
  const parts: [number, string][] = [
    [Math.floor(seconds / 86_400), "d"],
    [Math.floor(seconds / 3600) % 24, "h"],
    [Math.floor(seconds / 60) % 60, "m"],
    [seconds % 60, "s"],
  ];
  const first = parts.findIndex(([count]) => count > 0);
  return parts.slice(first, first + 2).filter(([count]) => count > 0)
    .map(([count, unit]) => `${count}${unit}`).join(" ");
}

/** Rounds up to a multiple. Both in the same unit. */
export function roundUp(value: number, multiple: number): number {
  return Math.ceil(value / multiple) * multiple;
}

function trimNumber(value: number, digits: number): string {
  return value.toFixed(digits).replace(/\.0+$|(\.\d*?)0+$/, "$1");
}
