/** Sizes and durations as people write and read them. */
import { deepEqual, equal, throws } from "node:assert/strict";
import fc from "fast-check";
import {
  formatDuration,
  formatSize,
  parseDuration,
  parseSize,
  roundUp,
} from "../../../src/core/units.ts";

Deno.test("parseSize() reads IEC and SI units, spaces and fractions", () => {
  const cases: [string | number, number][] = [
    ["0", 0],
    [4096, 4096],
    ["512B", 512],
    ["1K", 1024],
    ["10G", 10 * 1024 ** 3],
    ["10GiB", 10 * 1024 ** 3],
    ["10gib", 10 * 1024 ** 3],
    ["10GB", 10e9],
    [" 1.5 TiB ", 1.5 * 1024 ** 4],
    ["2PiB", 2 * 1024 ** 5],
  ];
  deepEqual(cases.map(([text]) => Number(parseSize(text))), cases.map(([, bytes]) => bytes));
});

Deno.test("parseSize() refuses what is not a size, with a code and a hint", () => {
  for (
    const text of ["", "GiB", "-1", "1.GiB", "10 GiBs", "1e9", "0x10", "NaN", "9007199254740992"]
  ) {
    throws(
      () => parseSize(text),
      { code: "usage/size", hint: "Write it like 512MiB, 10GiB or 1.5TiB." },
      text,
    );
  }
  equal(Number(parseSize("9007199254740991")), Number.MAX_SAFE_INTEGER);
});

Deno.test("parseSize() refuses bits, which a small b stands for", () => {
  const cases = [["1Gb", "1G"], ["1gb", "1g"], ["1.5 Tb", "1.5T"], ["8b", "8B"]] as const;
  for (const [text, bytes] of cases) {
    throws(() => parseSize(text), {
      code: "usage/size",
      message: `Cannot read size: the small b of "${text}" stands for bits`,
      hint: `Write bytes with a capital B, or leave it out: ${bytes}.`,
    });
  }
});

Deno.test("formatSize() uses the largest unit that keeps a whole", () => {
  const cases: [number, string][] = [
    [0, "0B"],
    [1023, "1023B"],
    [1024, "1KiB"],
    [640 * 1024, "640KiB"],
    [1.5 * 1024 ** 3, "1.5GiB"],
    [1.25 * 1024 ** 2, "1.25MiB"],
    [10 * 1024 ** 3, "10GiB"],
    [3 * 1024 ** 5, "3PiB"],
    [-2048, "-2KiB"],
  ];
  deepEqual(cases.map(([bytes]) => formatSize(bytes)), cases.map(([, text]) => text));
});

Deno.test("parseSize() reads back what formatSize() prints, within its two digits", () => {
  fc.assert(fc.property(fc.integer({ min: 0, max: 2 ** 52 }), (bytes) => {
    const back = Number(parseSize(formatSize(bytes)));
    return Math.abs(back - bytes) <= Math.max(1, bytes * 0.006);
  }));
});

Deno.test("parseDuration() reads every unit as milliseconds", () => {
  const cases: [string, number][] = [
    ["200ms", 200],
    ["5s", 5000],
    ["1.5m", 90_000],
    ["24h", 86_400_000],
    ["7d", 604_800_000],
    ["2w", 1_209_600_000],
    [" 3 s ", 3000],
  ];
  deepEqual(cases.map(([text]) => parseDuration(text)), cases.map(([, ms]) => ms));
});

Deno.test("parseDuration() refuses a number without a unit and other things", () => {
  for (const text of ["", "5", "5 sec", "-1s", "1M", "ms"]) {
    throws(() => parseDuration(text), { code: "usage/duration" }, text);
  }
});

Deno.test("formatDuration() says the two largest units", () => {
  const cases: [number, string][] = [
    [0, "0ms"],
    [450, "450ms"],
    [999.4, "999ms"],
    [12_000, "12s"],
    [200_000, "3m 20s"],
    [3_600_000, "1h"],
    [18_600_000, "5h 10m"],
    [82_800_000, "23h"],
    [187_200_000, "2d 4h"],
    [86_460_000, "1d"],
    [Infinity, "never"],
    [NaN, "never"],
  ];
  deepEqual(cases.map(([ms]) => formatDuration(ms)), cases.map(([, text]) => text));
});

Deno.test("roundUp() reaches the next multiple and stays on one", () => {
  deepEqual([roundUp(0, 4096), roundUp(1, 4096), roundUp(4096, 4096), roundUp(4097, 4096)], [
    0,
    4096,
    4096,
    8192,
  ]);
});
