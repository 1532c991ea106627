/** SQL texts of `models/`: a file is a list of sections, each begun by a line `-- name: <section>`. */
import { need } from "../core/mod.ts";
import { modelText } from "./assets.ts";

const SECTION = /^-- name: *([a-z0-9_]+)\s*$/;
const cache = new Map<string, ReadonlyMap<string, string>>();

/** Reads one file of `models/` into its sections, in order. Read once per process. */
export function sqlSections(file: string): ReadonlyMap<string, string> {
  const known = cache.get(file);
  if (known) return known;
  const sections = splitSections(modelText(file));
  cache.set(file, sections);
  return sections;
}

/** One section's statement. */
export function sql(file: string, section: string): string {
  return need(sqlSections(file).get(section), `section ${section} of models/${file}.sql`);
}

/** Text before the first section mark is the file's introduction and belongs to none. */
export function splitSections(text: string): ReadonlyMap<string, string> {
  const sections = new Map<string, string>();
  let name: string | undefined;
  let lines: string[] = [];
  const flush = () => {
    if (name !== undefined) sections.set(name, lines.join("\n").trim());
  };
  for (const line of text.split("\n")) {
    const mark = SECTION.exec(line);
    if (mark) {
      flush();
      name = mark[1];
      lines = [];
    } else lines.push(line);
  }
  flush();
  return sections;
}
