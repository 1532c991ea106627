/** The mirror's tables on the page of figures, docs/BENCHMARKS.md: on each storage one for every kind of load. */
import { type PagePart, tableText } from "../dataplane/page.ts";
import type { BenchResult } from "../pairs.ts";

export const MIRROR_PART: PagePart = {
  name: "mirror",
  programs: ["nbdcopy", "nbdkit", "qemu-storage-daemon", "fio"],
  tablesText,
};

const IDLE = "without an application";

/** Of works called `STORAGE/LOAD: WHAT`, `STORAGE/LOAD, PHASE: WHAT` or `…, in turns: WHAT`, or `STORAGE/idle WHAT`. */
function tablesText(results: readonly BenchResult[]): string {
  const parted = results.map((result) => {
    const [, work = ""] = /^[^/]*\/(.*)$/.exec(result.work) ?? [];
    const [, load = IDLE, what = work] =
      /^(?!idle)(.*in turns|.*?QD\d+|.*?IOPS)[:,] (.*)$/.exec(work) ?? [];
    // A table leaves the first word out: it is the storage there.
    return { load, result: { ...result, work: `- ${what}` } };
  });
  return [...Map.groupBy(parted, ({ load }) => load)].map(([load, own]) =>
    tableText(load, own.map(({ result }) => result))
  ).join("\n\n");
}
