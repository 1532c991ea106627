/** The mirror's tables on the page of figures, docs/BENCHMARKS.md: on each storage one for every kind of load. */
import { run } from "../../support/process.ts";
import { machineText, pagePath, placeText, replaceBetween, tableText } from "../dataplane/page.ts";
import { type Storage, STORAGES } from "../dataplane/storage.ts";
import type { BenchOptions, BenchResult } from "../pairs.ts";

const PROGRAMS = ["nbdcopy", "nbdkit", "qemu-storage-daemon", "fio"];

/** Writes the tables of the storages that were measured. @returns the page's path. @throws {Error} when it lacks a marker. */
export async function writeMirrorPage(
  results: readonly BenchResult[],
  options: BenchOptions,
): Promise<string> {
  const machine = await machineText(options, PROGRAMS);
  const text = Deno.readTextFileSync(pagePath);
  Deno.writeTextFileSync(
    pagePath,
    mirrorPageWith(text, results, (storage) => `${machine}\n${placeText(storage)}`),
  );
  await run(Deno.execPath(), ["fmt", "--quiet", pagePath]);
  return pagePath;
}

/** The page with new tables where results are, and the rest as it was. @param intro what stands above a storage's tables. */
export function mirrorPageWith(
  page: string,
  results: readonly BenchResult[],
  intro: (storage: Storage) => string,
): string {
  let text = page;
  for (const storage of STORAGES) {
    const own = results.filter(({ work }) => work.startsWith(`${storage}/`));
    if (own.length === 0) continue;
    const content = [intro(storage), ...tablesText(own)].join("\n\n");
    text = replaceBetween(text, `mirror ${storage}`, content);
  }
  return text;
}

const IDLE = "without an application";

/** Of works called `STORAGE/LOAD: WHAT` or `STORAGE/LOAD, PHASE: WHAT`, or `STORAGE/idle WHAT`. */
function tablesText(results: readonly BenchResult[]): string[] {
  const parted = results.map((result) => {
    const [, work = ""] = /^[^/]*\/(.*)$/.exec(result.work) ?? [];
    const [, load = IDLE, what = work] = /^(?!idle)(.*QD\d+|.*IOPS)[:,] (.*)$/.exec(work) ?? [];
    // A table leaves the first word out: it is the storage there.
    return { load, result: { ...result, work: `- ${what}` } };
  });
  return [...Map.groupBy(parted, ({ load }) => load)].map(([load, own]) =>
    tableText(load, own.map(({ result }) => result))
  );
}
