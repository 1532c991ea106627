/** The page of figures, docs/BENCHMARKS.md: one table a storage, between markers; prose around them stays. */
import { cpus, loadavg } from "node:os";
import { fileURLToPath } from "node:url";
import { run } from "../../support/process.ts";
import type { BenchOptions, BenchResult } from "../pairs.ts";
import { fileSystemOf, folderOf, type Storage, STORAGES } from "./storage.ts";

/** docs/BENCHMARKS.md. */
const pagePath: string = fileURLToPath(
  new URL("../../../docs/BENCHMARKS.md", import.meta.url),
);

/** What a bench has on the page: a stretch for each storage, between markers called `NAME STORAGE`. */
export interface PagePart {
  readonly name: string;
  /** Whose versions stand above the tables. */
  readonly programs: readonly string[];
  tablesText(results: readonly BenchResult[]): string;
}

export const DATAPLANE_PART: PagePart = {
  name: "dataplane",
  programs: ["nbdkit", "qemu-nbd", "qemu-storage-daemon", "fio"],
  tablesText,
};

/** Writes the tables of the storages that were measured. @returns the page's path. @throws {Error} when it lacks a marker. */
export async function writePart(
  part: PagePart,
  results: readonly BenchResult[],
  options: BenchOptions,
): Promise<string> {
  const machine = await machineText(options, part.programs);
  const intro = (storage: Storage) => `${machine}\n${placeText(storage)}`;
  const text = Deno.readTextFileSync(pagePath);
  Deno.writeTextFileSync(pagePath, pageWith(text, part, results, intro));
  await run(Deno.execPath(), ["fmt", "--quiet", pagePath]);
  return pagePath;
}

/**
 * The page with new tables where results are, and the rest as it was.
 * @param intro what stands above a storage's tables. @throws {Error} when the page lacks a marker.
 */
export function pageWith(
  page: string,
  { name, tablesText }: PagePart,
  results: readonly BenchResult[],
  intro: (storage: Storage) => string,
): string {
  let text = page;
  for (const storage of STORAGES) {
    const own = results.filter(({ work }) => work.startsWith(`${storage}/`));
    if (own.length === 0) continue;
    text = replaceBetween(text, `${name} ${storage}`, `${intro(storage)}\n\n${tablesText(own)}`);
  }
  return text;
}

/** Puts `content` between the markers of that name. @throws {Error} when the page lacks one. */
function replaceBetween(text: string, name: string, content: string): string {
  const begin = `<!-- ${name}: begin -->`, end = `<!-- ${name}: end -->`;
  const from = text.indexOf(begin), to = text.indexOf(end);
  if (from < 0 || to < from) {
    throw new Error(`Cannot write ${pagePath}: it lacks ${begin} … ${end}`);
  }
  return `${text.slice(0, from + begin.length)}\n\n${content}\n\n${text.slice(to)}`;
}

/** Where and how it was measured, and with which versions of the programs. */
async function machineText(
  { rounds, seconds }: BenchOptions,
  programs: readonly string[],
): Promise<string> {
  const [cpu] = cpus();
  const versions = await Promise.all(programs.map(version));
  return [
    `- ${new Date().toISOString().slice(0, 10)}, ${cpus().length} × ${cpu?.model ?? "?"},`,
    `  Linux ${Deno.osRelease()}, load average at the end ${loadavg()[0]?.toFixed(1)}`,
    `- Deno ${Deno.version.deno}; ${versions.join("; ")}`,
    `- medians of ${rounds} rounds of ${seconds} s`,
  ].join("\n");
}

async function version(command: string): Promise<string> {
  const { stdout } = await run(command, ["--version"]);
  const found = /\d+(\.\d+)+/.exec(stdout)?.[0] ?? "?";
  return `${command} ${found}`;
}

/** The folder of a storage, and what file system it is on. */
function placeText(storage: Storage): string {
  const folder = folderOf(storage);
  const { type, source } = fileSystemOf(folder);
  return `- files in ${folder} (${type}${type === source ? "" : ` on ${source}`}), page cache warm`;
}

/** A table a frontend: a row a work and unit, two columns a peer. */
function tablesText(results: readonly BenchResult[]): string {
  const frontends = new Map<string, BenchResult[]>();
  for (const result of results) {
    const [, frontend = ""] = /^[^/]*\/(\S+) /.exec(result.work) ?? [];
    frontends.set(frontend, [...frontends.get(frontend) ?? [], result]);
  }
  return [...frontends].map(([frontend, own]) => tableText(`over ${frontend}`, own)).join("\n\n");
}

/** One table: a row a work and unit, two columns a peer. A work's first word is left out. */
export function tableText(head: string, results: readonly BenchResult[]): string {
  const peers = [...new Set(results.map(({ peer_name }) => peer_name))];
  const rows = Map.groupBy(results, ({ work, unit }) => `${work}\0${unit}`);
  const lines = [...rows.values()].map((row) => {
    const [first] = row;
    const cells = peers.flatMap((peer) => {
      const result = row.find(({ peer_name }) => peer_name === peer);
      if (result === undefined) return ["", ""];
      const { ratio, spread } = result;
      return [figure(result.peer), `**${ratio.toFixed(2)}×** (${spread.toFixed(2)})`];
    });
    const work = (first?.work ?? "").replace(/^\S+ /, "");
    return [work, `${first?.unit}, ${first?.better}`, figure(first?.ours ?? NaN), ...cells];
  });
  const heads = [head, "unit, better", "psma"];
  for (const peer of peers) heads.push(peer, "ratio (spread)");
  return [heads, heads.map(() => "---"), ...lines].map((cells) => `| ${cells.join(" | ")} |`)
    .join("\n");
}

function figure(value: number): string {
  return value.toLocaleString("en", { maximumSignificantDigits: 3 });
}
